"""The noise schedule, and what is computed along it: loss, inversion, sampling."""
