"""Layered atlases: a clip as one picture a layer, a map from every frame into it, and an alpha between the layers."""
