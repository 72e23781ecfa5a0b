"""Null-text inversion through the host's UNet: the fit, what it needs, and what a stopped one leaves."""
