"""Attention over the frames of a clip: FFAM, STAM, what they are compared with, and windows of long clips."""
