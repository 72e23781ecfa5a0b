"""Networks of Layered Neural Atlases baked into an atlas: maps by least squares, pictures and alpha as they are.

A frame is evaluated, fitted and let go before the next: what is held beside the atlas is one frame.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..motion.filters import blurred
from . import spline
from .atlas import Atlas, Layer
from .gates import Gate, layer_name
from .maps import Maps, Size, axes, half
from .nla import Networks, Tick
from .options import MOST_TEXELS
from .texture import SEEN, Box, Splat

CELLS = 48  # of the splines along the longer side: 16 pixels each at the published 768
LEAST_CELL = 4  # px
DENSITY = 1.25  # texels a pixel, as a fit has them
HELD = 0.02  # how much of a layer must be seen for its picture to reach there: less is five of 255 at most
COUNTS = 0.5  # the same, for the residual


@dataclass(frozen=True)
class Residual:
    """Pixels between where the networks and where the baked maps put a pixel, over those that show the layer most."""

    mean: float
    worst: float

    def gates(self, name: str) -> list[Gate]:
        """name: the layer's."""
        return [
            Gate(f"{name}'s map, baked, from the networks', mean", self.mean, " px", 0.5, False, _OFF),
            Gate(f"{name}'s map, baked, from the networks', worst", self.worst, " px", 4, False, _TORN),
        ]


_OFF = "The networks' map is rougher than splines can be: an edit sits off by so much."
_TORN = "The networks' map folds or tears there: look at it with Inspect Video Atlas."


@dataclass(frozen=True)
class Baked:
    atlas: Atlas
    residuals: tuple[Residual, ...]  # of the foreground and of the background

    def gates(self) -> list[Gate]:
        """How close the baked maps are."""
        named = enumerate(self.residuals)
        return [gate for k, residual in named for gate in residual.gates(layer_name(self.atlas, k))]


def baked(networks: Networks, size: Size, n: int, tick: Tick = lambda done: None) -> Baked:
    """The atlas that the networks are for n frames of a size (h, w), of as many as they were trained on.

    Its planes are the networks' own, uv in -1..1. tick: see nla.py; it may raise to stop. Parts are on the CPU.
    """
    sheets, alphas = (_Sheet(size), _Sheet(size)), []
    for t in range(n):
        maps, alpha = networks.frame(size, t, n, tick)
        for sheet, uv, seen in zip(sheets, maps, (alpha, 1 - alpha), strict=True):
            sheet.add(uv.double(), seen)
        alphas.append((alpha * 255).round().byte()[None])
        tick(1)
    alphas = torch.stack(alphas)
    layers = []
    for k, sheet in enumerate(sheets):
        layers.append(sheet.layer(networks, alphas if k == 0 else 255 - alphas, k, tick))
        tick(1)
    return Baked(Atlas(size, tuple(layers), (alphas,)), tuple(sheet.residual() for sheet in sheets))


class _Sheet:
    """One layer, frame by frame: its maps, what they reach, and how far off they are."""

    def __init__(self, size: Size):
        self.size, self.maps, self.scales = size, [], []
        self.low, self.high = torch.full((2,), torch.inf), torch.full((2,), -torch.inf)
        self.sum = self.count = self.worst = 0.0
        self.inverses = [_inverse(side, cells) for side, cells in zip(size, cells_for(size), strict=True)]

    def add(self, uv: Tensor, seen: Tensor) -> None:
        """uv (h, w, 2) and seen (h, w) of the next frame."""
        maps = self._fitted(uv)
        dense, scale = maps.dense(self.size)[0], maps.affine[0, :, :2].det().abs().sqrt().item()
        reached = dense[seen > HELD]
        if len(reached):
            self.low, self.high = torch.minimum(self.low, reached.amin(0)), torch.maximum(self.high, reached.amax(0))
        off = (dense - uv).norm(dim=2)[seen > COUNTS] * (half(self.size) / max(scale, 1e-6))
        self.sum, self.count = self.sum + off.sum().item(), self.count + off.numel()
        self.worst = max(self.worst, off.max().item() if off.numel() else 0.0)
        self.maps.append(maps)
        self.scales.append(scale)

    def _fitted(self, uv: Tensor) -> Maps:
        """Of one frame (h, w, 2), by least squares over all its pixels.

        The affine part first: over the pixels x, y and 1 are orthogonal, so each is a quotient. Splines hold affine
        maps, so fitting the rest after it is fitting both at once; and they are separable, so it is one product.
        """
        x, y = axes(self.size, uv)
        by_x = torch.einsum("hwc,w->c", uv, x) / (len(y) * x.square().sum())
        by_y = torch.einsum("hwc,h->c", uv, y) / (len(x) * y.square().sum())
        plane = Maps(torch.stack([by_x, by_y, uv.mean((0, 1))], dim=1)[None])
        down, across = self.inverses
        offsets = torch.einsum("yh,hwc,xw->cyx", down, uv - plane.dense(self.size)[0], across)
        return Maps(plane.affine.float(), offsets[None].float())

    def layer(self, networks: Networks, seen: Tensor, k: int, tick: Tick) -> Layer:
        """seen: (n, 1, h, w) uint8."""
        maps = Maps(torch.cat([m.affine for m in self.maps]), torch.cat([m.offsets for m in self.maps]))
        box = self.box()
        texture = networks.picture(texels(box), k, tick)
        cover = Splat(0, box, texture)
        for t, own in enumerate(seen):
            cover.add(texture.new_zeros(0, *self.size), (own[0].float() / 255).square(), maps[[t]].dense(self.size)[0])
            tick(0)
        return Layer(maps, box, texture, blurred(cover.cover[None], 3)[0] * DENSITY**2 > SEEN)

    def box(self) -> Box:
        """Around all that is seen; the whole plane where nothing is."""
        low, high = (self.low, self.high) if self.low.isfinite().all() else (-torch.ones(2), torch.ones(2))
        density = DENSITY * half(self.size) / max(sorted(self.scales)[len(self.scales) // 2], 1e-6)
        low, high = (low - 2 / density).clamp(min=-1), (high + 2 / density).clamp(max=1)  # beyond is no uv
        columns, rows = ((high - low) * density).ceil().clamp(32, MOST_TEXELS).int().tolist()
        return Box(*low.tolist(), *high.tolist(), rows, columns)

    def residual(self) -> Residual:
        """Not a number where no pixel shows the layer most."""
        return Residual(self.sum / self.count, self.worst) if self.count else Residual(math.nan, math.nan)


def cells_for(size: Size) -> tuple[int, int]:
    """Of the splines, (rows, columns)."""
    return tuple(max(1, round(min(CELLS * side / max(size), side / LEAST_CELL))) for side in size)


def texels(box: Box) -> Tensor:
    """(rows, columns, 2): the uv of the texels' middles."""
    x = box.left + (torch.arange(box.columns) + 0.5) * ((box.right - box.left) / box.columns)
    y = box.top + (torch.arange(box.rows) + 0.5) * ((box.bottom - box.top) / box.rows)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _inverse(side: int, cells: int) -> Tensor:
    """(cells + 3, side) float64: from values at the pixels' centres to control points, by least squares."""
    return torch.linalg.pinv(spline.weights((torch.arange(side, dtype=torch.float64) + 0.5) / side, cells))
