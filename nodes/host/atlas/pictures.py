"""IMAGE and MASK of an atlas."""

import torch
from torch import Tensor

from ....ei2_modules.atlas.atlas import Atlas
from ..images import image_of


def clip_of(atlas: Atlas) -> Tensor:
    """IMAGE: every frame, drawn from the layers."""
    return image_of(torch.cat([atlas.render(frames) for frames in atlas.chunks()]))


def picture_of(atlas: Atlas, layer: int) -> Tensor:
    """IMAGE of one frame: a layer's picture, filled where no frame shows it."""
    return image_of(atlas.layers[layer].texture[None])


def alpha_of(atlas: Atlas, layer: int = 0) -> Tensor:
    """MASK: a layer's alpha in every frame."""
    return torch.cat([atlas.alpha(frames, layer) for frames in atlas.chunks()])[:, 0]
