"""Layered atlases inside the host: fitting them, editing their key frames, and their files."""
