"""Where the pixels of every frame lie in a layer's atlas: an affine map a frame, and offsets on grids of splines.

Positions are pixels from the middle of the picture, divided by half its longer side, so that x and y have one scale.
The unit of the atlas is the same: in the middle frame the start's map is the identity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import spline

Size = tuple[int, int]  # (h, w)


def half(size: Size) -> float:
    """Pixels in one unit."""
    return max(size) / 2


def extent(size: Size) -> tuple[float, float]:
    """(x, y) of the picture's lower right corner."""
    return size[1] / max(size), size[0] / max(size)


def axes(size: Size, like: Tensor) -> tuple[Tensor, Tensor]:
    """x (w,) and y (h,) of the pixels' centres."""
    (h, w), unit = size, half(size)
    x, y = (torch.arange(n, dtype=like.dtype, device=like.device) + 0.5 - n / 2 for n in (w, h))
    return x / unit, y / unit


def pixels(size: Size, like: Tensor) -> Tensor:
    """(h, w, 2) positions of the pixels' centres, x then y."""
    x, y = axes(size, like)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def to_sampling(points: Tensor, size: Size) -> Tensor:
    """Positions (..., 2) as `grid_sample` takes them: -1 and 1 are the picture's borders."""
    return points / points.new_tensor(extent(size))


@dataclass(frozen=True)
class Maps:
    """Of some frames, from the picture into a layer's atlas."""

    affine: Tensor  # (n, 2, 3)
    offsets: Tensor | None = None  # (n, 2, rows + 3, columns + 3), control points of splines that are added

    def __len__(self) -> int:
        return len(self.affine)

    def __getitem__(self, frames: slice | Sequence[int]) -> "Maps":
        return Maps(self.affine[frames], None if self.offsets is None else self.offsets[frames])

    def dense(self, size: Size) -> Tensor:
        """(n, h, w, 2): of every pixel."""
        x, y = axes(size, self.affine)
        by_x, by_y, shift = self.affine[:, None, None].unbind(-1)
        found = x[:, None] * by_x + y[:, None, None] * by_y + shift
        return found if self.offsets is None else found + spline.surface(self.offsets, size).permute(0, 2, 3, 1)

    def at(self, points: Tensor, size: Size) -> Tensor:
        """points (n, p, 2) -> (n, p, 2)."""
        found = points @ self.affine[:, :, :2].transpose(1, 2) + self.affine[:, None, :, 2]
        if self.offsets is None:
            return found
        along, across = self._spread(spline.weights, points, size)
        return found + torch.einsum("ncyx,npy,npx->npc", self.offsets, along, across)

    def jacobian(self, points: Tensor, size: Size) -> Tensor:
        """(n, p, 2, 2) at points (n, p, 2): the last index is the direction in the picture."""
        found = self.affine[:, None, :, :2].expand(-1, points.shape[1], -1, -1)
        if self.offsets is None:
            return found
        (along, across), (right, down) = self._spread(spline.weights, points, size), extent(size)
        by_y, by_x = self._spread(spline.slopes, points, size)
        by_x = torch.einsum("ncyx,npy,npx->npc", self.offsets, along, by_x) / (2 * right)
        by_y = torch.einsum("ncyx,npy,npx->npc", self.offsets, by_y, across) / (2 * down)
        return found + torch.stack([by_x, by_y], dim=-1)

    def _spread(self, kind: Callable, points: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """What each row (n, p, rows + 3) and each column of control points counts."""
        place = (to_sampling(points, size) + 1) / 2
        return kind(place[..., 1], self.offsets.shape[2] - 3), kind(place[..., 0], self.offsets.shape[3] - 3)
