"""The programs of `dev.py`."""
