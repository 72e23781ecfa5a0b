"""The miniature model's autoencoder: 64x64 pixels to 16x16 latents and back, small and convolutional.

Trained with noise on its latents, so that the little noise a sampler leaves behind does not show in the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS = 8  # of the latents
FACTOR = 4  # pixels a latent, along each side
NOISE = 0.1  # standard deviation, on latents of standard deviation 1


class Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class Autoencoder(nn.Module):
    """Pictures are (n, 3, h, w) in -1..1 with sides divisible by 4, latents (n, 8, h / 4, w / 4) of spread 1."""

    def __init__(self, width: int = 96, fine: int = 32):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, fine, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(fine, width, 4, stride=4),
            Residual(width),
            Residual(width),
            nn.Conv2d(width, CHANNELS, 1),
            nn.BatchNorm2d(CHANNELS, affine=False),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(CHANNELS, width, 3, padding=1),
            Residual(width),
            Residual(width),
            nn.Conv2d(width, 4 * 2 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            Residual(2 * fine),
            nn.Conv2d(2 * fine, 4 * fine, 3, padding=1),
            nn.PixelShuffle(2),
            nn.SiLU(),
            nn.Conv2d(fine, 3, 3, padding=1),
        )

    def encode(self, pictures: Tensor) -> Tensor:
        return self.encoder(pictures)

    def decode(self, latents: Tensor) -> Tensor:
        return self.decoder(latents)


def loss(model: Autoencoder, pictures: Tensor, generator: torch.Generator) -> Tensor:
    """How badly pictures come back when their latents carry noise: absolute plus squared error."""
    latents = model.encode(pictures)
    back = model.decode(latents + NOISE * torch.randn(latents.shape, generator=generator))
    return F.l1_loss(back, pictures) + F.mse_loss(back, pictures)
