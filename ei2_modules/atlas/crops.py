"""The part of each key frame that is edited: what holds the layer, in one size for all, and the size of the edit.

StableVideo cuts a box of random size; here the same edit cuts the same one.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .key_frames import SEES
from .maps import Size

BORDER = 1 / 24  # of the clip's longer side, around the layer
MULTIPLE = 64  # px, of which both sides of an edit are, as published


@dataclass(frozen=True)
class Crops:
    """Windows into the clip's frames."""

    corners: tuple[tuple[int, int], ...]  # top and left, of each key frame
    size: Size  # px of the clip
    edited: Size  # px of the edit

    @classmethod
    def around(cls, seen: Tensor, short_side: int) -> "Crops":
        """Windows that hold all pixels of a layer; seen (k, 1, h, w), each with some pixel above SEES."""
        picture, border = tuple(seen.shape[-2:]), round(max(seen.shape[-2:]) * BORDER)
        boxes = [_box(one[0] > SEES) for one in seen]
        size = tuple(
            min(side, max(int(high[axis] - low[axis]) for low, high in boxes) + 2 * border)
            for axis, side in enumerate(picture)
        )
        corners = tuple(
            tuple(
                min(max(int(low[axis] + high[axis] - size[axis]) // 2, 0), picture[axis] - size[axis])
                for axis in range(2)
            )
            for low, high in boxes
        )
        scale = short_side / min(size)
        return cls(corners, size, tuple(max(1, round(side * scale / MULTIPLE)) * MULTIPLE for side in size))

    def cut(self, k: int, frame: Tensor) -> Tensor:
        """(c, h, w) of the clip -> (1, c, *edited)."""
        top, left = self.corners[k]
        window = frame[None, :, top : top + self.size[0], left : left + self.size[1]]
        return _resized(window, self.edited)

    def pasted(self, k: int, frame: Tensor, crop: Tensor) -> Tensor:
        """(c, h, w) of the clip with a crop (1, c, *edited) in its place."""
        top, left = self.corners[k]
        found = frame.clone()
        found[:, top : top + self.size[0], left : left + self.size[1]] = _resized(crop, self.size)[0]
        return found


def _box(seen: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last row and column that are seen."""
    places = torch.nonzero(seen)
    return places.amin(0), places.amax(0) + 1


def _resized(picture: Tensor, size: Size) -> Tensor:
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    return F.interpolate(picture, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
