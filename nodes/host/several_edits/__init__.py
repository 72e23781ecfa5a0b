"""Several edits of one inverted clip: their list, the run, and what they look like together."""
