"""Renewed noise for a change of shape (ours): inverted noise remembers the old shape, so inside a mask it is replaced.

One patch of noise moves with the mask through the clip, by whole pixels, so that what grows from it is the same thing
in every frame, and its values, and with them their variance, stay what they are.
"""

import numpy as np
import torch
from torch import Tensor


def moving_noise(mask: Tensor, channels: int, generator: torch.Generator) -> Tensor:
    """Standard normal noise that moves as the mask's centroid does: (n, 1, h, w) -> (n, channels, h, w) fp32, CPU.

    generator: on the CPU. What leaves the picture at one side comes in at the other.
    """
    patch = torch.randn(channels, *mask.shape[2:], generator=generator)
    centres = centroids(mask)
    shifts = (centres - centres[:1]).round().long().tolist()
    return torch.stack([patch.roll((dy, dx), (1, 2)) for dy, dx in shifts])


def centroids(mask: Tensor) -> Tensor:
    """(n, 1, h, w), values from 0 on -> (n, 2), y and x in pixels.

    A frame whose mask is empty takes its place between its neighbours in time; if all are empty, nothing moves.
    """
    weights = mask[:, 0].double().cpu()
    mass = weights.sum((1, 2))
    y, x = (torch.arange(side, dtype=torch.float64) for side in weights.shape[1:])
    found = torch.stack([(weights.sum(2) * y).sum(1) / mass, (weights.sum(1) * x).sum(1) / mass], dim=1)
    known = mass.nonzero()[:, 0]
    if not len(known):
        return torch.zeros_like(found)
    columns = [np.interp(np.arange(len(mask)), known, found[known, axis]) for axis in (0, 1)]
    return torch.from_numpy(np.stack(columns, axis=1))


def renew(x: Tensor, mask: Tensor, noise: Tensor, sigma: Tensor | float, share: float = 1.0) -> Tensor:
    """Part of the noise inside a mask exchanged: latents (n, c, h, w) in VE units at the sigma where sampling starts.

    sqrt(1 - a)·x + sqrt(a)·sigma·noise with a = share·mask: of independent noise, the variance stays sigma².
    """
    a = share * mask.to(x)
    return (1 - a).sqrt() * x + a.sqrt() * sigma * noise.to(x)
