"""What is read from the sources alone."""
