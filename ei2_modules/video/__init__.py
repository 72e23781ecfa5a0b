"""Frames out of a video file, without reading the rest of it."""
