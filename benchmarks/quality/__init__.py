"""The quality benchmark: `python dev.py bench quality`."""
