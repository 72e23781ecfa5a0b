"""Attention control: an edit whose attention follows its source's, step by step."""
