"""How pixels, and objects, move from frame to frame."""
