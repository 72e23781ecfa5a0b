"""What a stopped tuning leaves, and how the next one finds it."""
