"""The miniature model that ships with the pack: what it is made of, and the scenes it knows. Plain PyTorch."""
