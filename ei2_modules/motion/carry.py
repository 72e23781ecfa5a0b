"""The object of one edited frame, carried through its clip along the motion that the source's object has.

An edit that changes a shape draws it anew in every frame, and no two are quite alike. Here one frame's drawing takes
the place of the others, moved, turned and scaled as the source's object is.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .optical_flow import axes, warp

COMPARED = 128  # pixels of the longer side at which frames are compared: of n frames n * n are drawn


def carried(edited: Tensor, wide: Tensor, motions: Tensor, key: int) -> Tensor:
    """Frame `key` of an edit (n, 3, h, w) put into all others, inside their `grown` masks (n, 1, h, w).

    A frame whose mask is empty stays as it is.
    """
    x, y = axes(edited)
    here = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, h * w)
    frames = []
    for frame, share, motion in zip(edited, wide, motions, strict=True):
        there = (torch.linalg.solve(motions[key], motion) @ here)[:2] - here[:2]
        moved = warp(edited[key][None], there.view(1, 2, *x.shape))[0]
        frames.append(frame + share * (moved - frame))
    frames[key] = edited[key]
    return torch.stack(frames)


def most_typical(edited: Tensor, wide: Tensor, motions: Tensor, on_frame: Callable[[], None] = lambda: None) -> int:
    """The frame that, carried into the others, differs least from them. on_frame() is called before each."""
    seen = wide.flatten(1).any(1).nonzero()[:, 0].tolist()
    edited, wide, motions = smaller(edited, wide, motions)
    differences = []
    for t in seen:
        on_frame()
        differences.append((carried(edited, wide, motions, t) - edited).abs().mean().item())
    return seen[differences.index(min(differences))]


def smaller(edited: Tensor, wide: Tensor, motions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same at `COMPARED` pixels of the longer side, or as it is."""
    h, w = edited.shape[-2:]
    share = min(1.0, COMPARED / max(h, w))
    size = [max(1, round(share * side)) for side in (h, w)]
    x, y = size[1] / w, size[0] / h
    to_small = torch.tensor([[x, 0, (x - 1) / 2], [0, y, (y - 1) / 2], [0, 0, 1]])  # of the middles of pixels
    edited, wide = (F.interpolate(one, size, mode="area") for one in (edited, wide))
    return edited, wide, to_small @ motions @ torch.linalg.inv(to_small)
