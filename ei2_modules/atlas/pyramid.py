"""A picture as levels that sum to it: coarse ones move large areas, the finest alone gets grains."""

import torch.nn.functional as F
from torch import Tensor

SCALES = (8, 4, 2, 1)


def pyramid(x: Tensor) -> list[Tensor]:
    """(1, c, h, w) as levels of SCALES that sum to it."""
    levels, rest = [], x
    for scale in SCALES:
        size = tuple(-(-side // scale) for side in x.shape[-2:])
        levels.append(F.interpolate(rest, size, mode="area"))
        rest = rest - F.interpolate(levels[-1], x.shape[-2:], mode="bilinear", align_corners=False)
    return levels


def summed(levels: tuple[Tensor, ...], size: tuple[int, int]) -> Tensor:
    """What `pyramid` took apart."""
    *coarse, fine = levels
    for level in coarse:
        fine = fine + F.interpolate(level, size, mode="bilinear", align_corners=False)
    return fine
