"""The nodes in the real host, in this process, on miniature models."""
