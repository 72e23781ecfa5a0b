"""The EI² method in plain PyTorch: nothing here knows ComfyUI."""

__version__ = "0.2.0"
