"""Inversion and sampling through the host's guider, and the record that an inverted latent carries."""
