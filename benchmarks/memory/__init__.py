"""Bytes that a tuning step needs, and that a server keeps over many runs."""
