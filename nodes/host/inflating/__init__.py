"""Puts the method into a clone of a host MODEL, by the host's own means, and takes it out again."""
