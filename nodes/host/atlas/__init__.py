"""Layered atlases inside the host: fitting them, and their files."""
