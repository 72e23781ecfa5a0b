"""The miniature model's text encoder: a two-layer transformer over captions of 24 tokens."""

import torch
from torch import Tensor, nn

from .vocabulary import LENGTH, WORDS

WIDTH = 64


class TextEncoder(nn.Module):
    """Token numbers (n, LENGTH) to a context (n, LENGTH, WIDTH) for the UNet's cross-attention."""

    def __init__(self, layers: int = 2, heads: int = 4):
        super().__init__()
        self.words = nn.Embedding(len(WORDS), WIDTH)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH, WIDTH))
        layer = nn.TransformerEncoderLayer(
            WIDTH, heads, 2 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(WIDTH), enable_nested_tensor=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.layers(self.words(tokens) + self.places)
