"""A layer's picture: sampled by maps, splatted from frames, filled where no frame shows it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SEEN = 0.05  # of a frame's pixel that must fall on a texel for it to count as observed
FULL = 0.3  # the same, from which on nothing of its surroundings is mixed in


@dataclass(frozen=True)
class Box:
    """The part of a layer's plane that its picture covers, in the maps' units, and its texels."""

    left: float
    top: float
    right: float
    bottom: float
    rows: int
    columns: int

    def to_sampling(self, uv: Tensor) -> Tensor:
        """Map positions (..., 2) as `grid_sample` takes them."""
        low, high = uv.new_tensor([self.left, self.top]), uv.new_tensor([self.right, self.bottom])
        return uv * (2 / (high - low)) - (high + low) / (high - low)

    def to_texels(self, uv: Tensor) -> Tensor:
        """Columns and rows (..., 2); 0 is the middle of the first."""
        return ((self.to_sampling(uv) + 1) * uv.new_tensor([self.columns, self.rows]) - 1) / 2


def sample(texture: Tensor, uv: Tensor, box: Box) -> Tensor:
    """texture (c, rows, columns) at uv (n, h, w, 2) -> (n, c, h, w), bilinear; outside the border's colour."""
    n, h, w, _ = uv.shape
    place = box.to_sampling(uv).reshape(1, n * h, w, 2)  # as one tall picture: n copies of a gradient are not made
    return sample_picture(texture[None], place)[0].unflatten(1, (n, h)).transpose(0, 1)


def sample_picture(pictures: Tensor, place: Tensor) -> Tensor:
    """pictures (n, c, h, w) at place (n, rows, columns, 2) in -1..1, bilinear; outside the border's value."""
    return F.grid_sample(pictures, place, mode="bilinear", padding_mode="border", align_corners=False)


class Splat:
    """Frames gathered in a layer's picture: every pixel falls on the four texels around it, with bilinear weights."""

    def __init__(self, channels: int, box: Box, like: Tensor):
        self.box, self.sums = box, like.new_zeros(channels + 1, box.rows * box.columns)

    def add(self, values: Tensor, weight: Tensor, uv: Tensor) -> None:
        """values (c, h, w), weight (h, w), uv (h, w, 2) of one frame."""
        place = self.box.to_texels(uv).reshape(-1, 2)
        corner = place.floor()
        inside_x, inside_y = (place - corner).unbind(1)
        rows = torch.cat([values * weight, weight[None]]).flatten(1)
        for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
            share = (inside_x if right else 1 - inside_x) * (inside_y if down else 1 - inside_y)
            x, y = (corner + corner.new_tensor([right, down])).long().unbind(1)
            valid = (x >= 0) & (x < self.box.columns) & (y >= 0) & (y < self.box.rows)
            index = (y * self.box.columns + x).clamp(0, self.sums.shape[1] - 1)
            self.sums.index_add_(1, index, rows * (share * valid))

    @property
    def cover(self) -> Tensor:
        """(rows, columns): how much fell on each texel, in pixels."""
        return self.sums[-1].view(self.box.rows, self.box.columns)

    def mean(self) -> Tensor:
        """(c, rows, columns): weighted mean of what fell there, 0 where nothing did."""
        return (self.sums[:-1] / self.sums[-1].clamp(min=1e-6)).view(-1, self.box.rows, self.box.columns)


def fill(texture: Tensor, cover: Tensor) -> Tensor:
    """Texels without cover take the colours around them: the push-pull of Gortler et al. 1996, section 4.3.

    texture (c, rows, columns), cover (rows, columns) in pixels. Returns the texture, every texel filled.
    """
    weight = (cover / FULL).clamp(0, 1)[None, None]
    levels = [(texture[None] * weight, weight)]
    while max(levels[-1][0].shape[-2:]) > 1:
        levels.append(tuple(_halved(part) for part in levels[-1]))
    values, weight = levels.pop()
    filled = values / weight.clamp(min=1e-6)
    for values, weight in reversed(levels):
        coarser = F.interpolate(filled, values.shape[-2:], mode="bilinear", align_corners=False)
        filled = values + (1 - weight) * coarser
    return filled[0]


def _halved(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 2, 2, ceil_mode=True, count_include_pad=False)
