"""Dense optical flow: pyramidal Lucas-Kanade, built from kornia's pyramid, gradients and remap.

Lucas and Kanade 1981, in the coarse-to-fine, iterated form of Bouguet 2001, solved at every pixel over all three
colours: what differs from its ground in hue alone is followed too. It needs no weights, so it works offline. It follows
textured motion well. On flat areas it keeps the coarser level's guess, unless standing still explains them as well.
This is the only file of the package that imports kornia.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from kornia.filters import gaussian_blur2d, spatial_gradient
from kornia.geometry.transform import build_pyramid, remap
from torch import Tensor


@dataclass(frozen=True)
class FlowOptions:
    """How hard the flow search tries."""

    max_levels: int = 6  # 2^5 times the reach of one level; 256 px leaves 8 px at the top
    min_side: int = 8  # below this a level holds no structure to match
    iterations: int = 8  # more did not lower the error on known translations
    window: int = 15  # px, the neighbourhood that is assumed to move as one
    sigma: float = 3.0  # px, Gaussian weight in the window; 2 doubles the error, more blurs motion edges
    damping: float = 1e-4  # in squared gradients (0..1 per px, over all colours); keeps flat areas where they were
    still: float = 1e-4  # squared difference (over all colours) below which what need not move stands still
    max_step: float = 1.5  # px per iteration; the linearisation says nothing about longer steps


DEFAULTS = FlowOptions()


def estimate_flow(first: Tensor, second: Tensor, options: FlowOptions = DEFAULTS) -> Tensor:
    """Where each pixel of `first` is found in `second`.

    first, second: (n, 3, h, w) in 0..1. Returns (n, 2, h, w), dx then dy in pixels, with
    second(x + dx, y + dy) ~ first(x, y).
    """
    levels = _level_count(first.shape[-2:], options)
    firsts, seconds = (build_pyramid(frames, levels) for frames in (first, second))
    flow = torch.zeros_like(firsts[-1][:, :2])
    for a, b in zip(reversed(firsts), reversed(seconds), strict=True):
        flow = _refine(a, b, _resize_flow(flow, a.shape[-2:]), options)
    return torch.where(_stands(first, second, flow, options), 0, flow)


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """Pull `frames` (n, c, h, w) back along `flow` (n, 2, h, w, pixels): result(x) = frames(x + flow), bilinear.

    Positions outside repeat the border; `followed` tells which they are.
    """
    x, y = _positions(flow)
    return remap(frames, x, y, padding_mode="border", align_corners=True)


def followed(flow: Tensor, back: Tensor) -> Tensor:
    """Which pixels the flow can be trusted for: they land inside, and going there and back ends where it began.

    flow, back: (n, 2, h, w) pixels, forward and backward. Returns (n, 1, h, w) bool. The bound
    0.01 (|flow|^2 + |back|^2) + 0.5 px^2 is that of Sundaram, Brox and Keutzer, ECCV 2010.
    """
    back = warp(back, flow)
    gap = (flow + back).square().sum(1, keepdim=True)
    length = (flow.square() + back.square()).sum(1, keepdim=True)
    return _inside(flow) & (gap <= 0.01 * length + 0.5)


def _level_count(size: tuple[int, int], options: FlowOptions) -> int:
    levels, side = 1, min(size)
    while levels < options.max_levels and side // 2 >= options.min_side:
        levels, side = levels + 1, side // 2
    return levels


def _refine(a: Tensor, b: Tensor, flow: Tensor, options: FlowOptions) -> Tensor:
    """Iterate the 2x2 least-squares step of one pyramid level."""
    gx, gy = spatial_gradient(a).unbind(2)  # (n, 3, h, w) each
    xx, xy, yy = _windowed(options, gx * gx, gx * gy, gy * gy)
    xx, yy = xx + options.damping, yy + options.damping
    determinant = xx * yy - xy * xy
    for _ in range(options.iterations):
        change = (warp(b, flow) - a) * _inside(flow)  # what left the picture says nothing
        ex, ey = _windowed(options, gx * change, gy * change)
        step = torch.cat([xy * ey - yy * ex, xy * ex - xx * ey], dim=1) / determinant
        flow = flow + step.clamp(-options.max_step, options.max_step)
    return flow


def _stands(a: Tensor, b: Tensor, flow: Tensor, options: FlowOptions) -> Tensor:
    """(n, 1, h, w) bool: no motion explains the window as well as the flow does, and well."""
    moved, stood = _windowed(options, (warp(b, flow) - a).square(), (b - a).square())
    return (stood <= moved + 1e-3 * options.still) & (stood < options.still)


def _windowed(options: FlowOptions, *products: Tensor) -> tuple[Tensor, ...]:
    """Of each, (n, 3, h, w): the sum over colours and the mean in the window, (n, 1, h, w)."""
    summed = torch.cat([product.sum(1, keepdim=True) for product in products], dim=1)
    sides, sigmas = (options.window,) * 2, (options.sigma,) * 2
    return gaussian_blur2d(summed, sides, sigmas, border_type="replicate").split(1, dim=1)


def _resize_flow(flow: Tensor, size: tuple[int, int]) -> Tensor:
    h, w = flow.shape[-2:]
    scale = flow.new_tensor([size[1] / w, size[0] / h]).view(1, 2, 1, 1)
    return F.interpolate(flow, size=tuple(size), mode="bilinear", align_corners=False) * scale


def axes(like: Tensor) -> tuple[Tensor, Tensor]:
    """The x and y of every pixel, (h, w) each, of pictures (..., h, w)."""
    h, w = like.shape[-2:]
    y, x = torch.meshgrid(*(torch.arange(n, device=like.device, dtype=like.dtype) for n in (h, w)), indexing="ij")
    return x, y


def _positions(flow: Tensor) -> tuple[Tensor, Tensor]:
    """The x and y (n, h, w) each pixel's flow points at."""
    x, y = axes(flow)
    return x + flow[:, 0], y + flow[:, 1]


def _inside(flow: Tensor) -> Tensor:
    """Which pixels land in the picture, (n, 1, h, w) bool; 0.01 px of slack keeps a still clip's border in."""
    h, w = flow.shape[-2:]
    x, y = _positions(flow)
    slack = 0.01
    return ((x >= -slack) & (x <= w - 1 + slack) & (y >= -slack) & (y <= h - 1 + slack)).unsqueeze(1)
