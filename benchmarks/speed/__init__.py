"""Time of a step and of its parts, at full widths with random weights."""
