"""Uniform cubic B-splines over the picture, as free-form deformations use them (Rueckert et al. 1999, eq. 2)."""

import torch
from torch import Tensor


def weights(position: Tensor, cells: int) -> Tensor:
    """How much each control point counts at a position.

    position: (...) in 0..1 across the picture; beyond it the border's value counts. Returns (..., cells + 3): one
    control point stands outside on the left and one on the right, so that every cell sees four. They sum to 1.
    """
    away = _away(position, cells).abs()
    near, far = 2 / 3 - away.square() + away.pow(3) / 2, (2 - away).clamp(min=0).pow(3) / 6
    return torch.where(away < 1, near, far)


def slopes(position: Tensor, cells: int) -> Tensor:
    """The derivative of `weights` by the position, of the same shape."""
    away = _away(position, cells)
    size = away.abs()
    near, far = size * (1.5 * size - 2), -(2 - size).clamp(min=0).square() / 2
    return cells * away.sign() * torch.where(size < 1, near, far)


def surface(grid: Tensor, size: tuple[int, int]) -> Tensor:
    """The spline at the pixels' centres: control points (n, c, rows + 3, columns + 3) -> (n, c, h, w)."""
    down, across = ((torch.arange(n, dtype=grid.dtype, device=grid.device) + 0.5) / n for n in size)
    down, across = weights(down, grid.shape[2] - 3), weights(across, grid.shape[3] - 3)
    return torch.einsum("hy,ncyx,wx->nchw", down, grid, across)


def _away(position: Tensor, cells: int) -> Tensor:
    """From the control points, in cells; (..., cells + 3)."""
    points = torch.arange(-1, cells + 2, dtype=position.dtype, device=position.device)
    return position.clamp(0, 1)[..., None] * cells - points
