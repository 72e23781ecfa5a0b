"""`python dev.py train`: the miniature model that ships with the pack."""
