"""Layered atlases: rendered clips whose maps are known, and how close a fit comes to them."""
