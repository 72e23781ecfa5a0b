"""One file per node (or per pair that belongs together). The host is touched only in nodes/host."""
