"""One-shot tuning inside the host."""
