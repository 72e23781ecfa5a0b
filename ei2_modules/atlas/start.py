"""The closed-form start: where most of an atlas comes from, in a few seconds and without any descent.

Affine maps from the flow, alpha from what does not move with the background, pictures splatted from all frames. One
frame after the other: what is held beside the clip is one alpha a frame.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..motion.filters import blurred, widened
from ..motion.flow import Flow
from .atlas import visible
from .chain import chained, steps, towards
from .light import chained_gains, without
from .maps import Maps, Size, half, pixels
from .options import MOST_TEXELS, MOTIONS, FitOptions
from .texture import Box, Splat, fill, sample

STILL = 0.7  # px from the background's motion that a foreground's pixel must move to count
MOVES = 0.4  # px of difference between two motions, for one unit of alpha's logit
DIFFERS = 0.02  # of colour between two layers, for the same
DOUBT = 0.5  # of a logit: what both explain goes to the background
CERTAIN = 4.0  # the most that colour may add to a logit
LEAST, MOST = 0.05, 0.95  # alpha of a start: nothing is decided for good
BOX = 0.97  # of the rectangle around it that a mask fills, from which on it is a box and not an outline
ROUGH = 0.1  # share of a mask that moves with the background from which on it is rough


@dataclass(frozen=True)
class Start:
    """What a fit begins with. Layers are from front to back; the last is the background and has no alpha."""

    maps: tuple[Maps, ...]
    alphas: tuple[Tensor, ...]  # (n, 1, h, w) each, of all layers but the last
    boxes: tuple[Box, ...]
    textures: tuple[Tensor, ...]  # (3, rows, columns), filled
    covers: tuple[Tensor, ...]  # (rows, columns) in pixels
    tight: bool
    gains: Tensor | None = None  # of the light, see light.py


def start(frames: Tensor, masks: tuple[Tensor, ...], flow: Flow, options: FitOptions) -> Start:
    """frames (n, 3, h, w), masks (n, 1, h, w) each, from front to back; none for a single layer."""
    first = tuple(_softened(mask) for mask in masks)
    motion = _Motion.found(flow, first)
    tight = options.masks == "tight"
    if options.masks == "auto":
        tight = bool(masks) and not any(map(is_box, masks)) and not motion.crossed(masks)
    alphas = first
    if not tight:
        alphas = motion.alphas(first)
        alphas = _Motion.found(flow, tuple(a.square() for a in alphas)).alphas(first)
    maps = _maps(flow, tuple(a.square() for a in alphas), options)
    covered = zip(maps, (*masks, None), strict=True)
    gains = None
    if options.lighting:
        gains = chained_gains(frames, flow)
        frames = torch.cat([without(frames[t : t + 1], gains[t : t + 1]) for t in range(len(frames))])
    boxes = tuple(_box(m, mask, options.density, frames.shape[-2:]) for m, mask in covered)
    for _ in range(2 if masks and not tight else 0):
        textures, _ = splatted(frames, maps, alphas, boxes)
        alphas = _by_colour(frames, maps, boxes, textures, alphas)
    textures, covers = splatted(frames, maps, alphas, boxes)
    return Start(maps, alphas, boxes, textures, covers, tight, gains)


@dataclass(frozen=True)
class _Motion:
    """Affine motion of every layer, from every frame to its neighbour towards the middle."""

    flow: Flow
    steps: tuple[Tensor, ...]  # (n, 2, 3) each

    @classmethod
    def found(cls, flow: Flow, weights: tuple[Tensor, ...]) -> "_Motion":
        """The background first, then what of the others, (n, 1, h, w) each, does not move with it."""
        behind = cls(flow, (steps(flow, _left(flow, weights)),))
        moving = ([w[t] * behind.differs(t) for t in range(flow.frames)] for w in weights)
        return cls(flow, (*(steps(flow, weight) for weight in moving), *behind.steps))

    def differs(self, t: int) -> Tensor:
        """(1, h, w), 0.05 for what moves with the background to 1.05."""
        return 1.05 - torch.exp(-(self.residual(t, -1) / STILL).square())

    def residual(self, t: int, layer: int) -> Tensor:
        """(1, h, w) px between the flow of frame t and this layer's motion."""
        field, _ = towards(self.flow, t)
        points = pixels(self.flow.size, field)
        moved = Maps(self.steps[layer][t : t + 1]).dense(self.flow.size)[0] - points
        return (field.permute(1, 2, 0) - moved * half(self.flow.size)).norm(dim=2)[None]

    def evidence(self, t: int, layer: int) -> Tensor:
        """(1, h, w) px: by how much better this layer explains the motion than the background does."""
        return blurred(self.residual(t, -1) - self.residual(t, layer), 5)

    def alphas(self, soft: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        frames = range(self.flow.frames)
        return tuple(
            torch.stack([a[t] * torch.sigmoid(self.evidence(t, k) / MOVES + 1) for t in frames]).clamp(LEAST, MOST)
            for k, a in enumerate(soft)
        )

    def crossed(self, masks: tuple[Tensor, ...]) -> bool:
        """Whether the masks hold so much of the background that they must be rough."""
        with_it = without = 0.0
        for k, mask in enumerate(masks):
            for t in range(self.flow.frames):
                evidence = self.evidence(t, k)[mask[t] > 0.5]
                with_it += (evidence < -MOVES).sum().item()
                without += (evidence > MOVES).sum().item()
        return with_it > ROUGH * max(with_it + without, 1)


def is_box(mask: Tensor) -> bool:
    """Whether a mask (n, 1, h, w) is a rectangle in most of the frames that it marks."""
    shares = []
    for one in mask[:, 0] > 0.5:
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        if len(rows):
            shares.append(one.sum().item() / ((rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)).item())
    return bool(shares) and sorted(shares)[len(shares) // 2] > BOX


def _left(flow: Flow, weights: tuple[Tensor, ...]) -> Tensor:
    """(n, 1, h, w): what the others leave to the background."""
    left = torch.ones_like(flow.forward[:1, :1]).expand(flow.frames, -1, -1, -1)
    for weight in weights:
        left = left * (1 - weight)
    return left


def _maps(flow: Flow, weights: tuple[Tensor, ...], options: FitOptions) -> tuple[Maps, ...]:
    """Of all layers, from what counts of each."""
    motion = MOTIONS[options.motion]
    foregrounds = (chained(flow, weight, motion.foreground, motion.smooth) for weight in weights)
    return (*foregrounds, chained(flow, _left(flow, weights), motion.background, motion.smooth))


def _box(maps: Maps, mask: Tensor | None, density: float, size: Size) -> Box:
    """What the frames cover of a layer's plane, with a margin."""
    low, high = torch.full((2,), torch.inf), torch.full((2,), -torch.inf)
    for t in range(len(maps)):
        uv = maps[[t]].dense(size)[0]
        uv = uv.flatten(0, 1) if mask is None else uv[widened(mask[t : t + 1], 4)[0, 0] > 0.5]
        if len(uv):
            low, high = torch.minimum(low, uv.amin(0)), torch.maximum(high, uv.amax(0))
    margin = (high - low) * 0.04 + 2 / half(size)
    low, high = (low - margin).clamp(min=-4), (high + margin).clamp(max=4)
    columns, rows = ((high - low) * half(size) * density).ceil().clamp(32, MOST_TEXELS).int().tolist()
    return Box(*low.tolist(), *high.tolist(), rows, columns)


def splatted(
    frames: Tensor, maps: tuple[Maps, ...], alphas: tuple[Tensor, ...], boxes: tuple[Box, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """(textures, covers) of all layers: every frame weighs by the square of how much of it is seen there."""
    background = torch.ones_like(frames[:1, :1]).expand(len(frames), -1, -1, -1)
    splats = [Splat(frames.shape[1], box, frames) for box in boxes]
    for t in range(len(frames)):
        for splat, m, seen in zip(splats, maps, visible([a[t : t + 1] for a in (*alphas, background)]), strict=True):
            splat.add(frames[t], seen[0, 0].square(), m[[t]].dense(frames.shape[-2:])[0])
    return tuple(fill(s.mean(), s.cover) for s in splats), tuple(s.cover for s in splats)


def _by_colour(frames, maps, boxes, textures, alphas) -> tuple[Tensor, ...]:
    """Alpha rises where a layer's picture explains the frame better than the background's, and falls elsewhere."""
    found = [torch.empty_like(a) for a in alphas]
    for t in range(len(frames)):
        errors = [
            blurred((sample(texture, m[[t]].dense(frames.shape[-2:]), box)[0] - frames[t]).abs().mean(0, True), 5)
            for texture, m, box in zip(textures, maps, boxes, strict=True)
        ]
        for alpha, error, new in zip(alphas, errors[:-1], found, strict=True):
            more = ((errors[-1] - error) / DIFFERS - DOUBT).clamp(-CERTAIN, CERTAIN)
            new[t] = blurred(torch.sigmoid(0.7 * torch.logit(alpha[t]) + more).clamp(LEAST, MOST), 3)
    return tuple(found)


def _softened(mask: Tensor) -> Tensor:
    return torch.stack([blurred(m, 5) for m in mask]).clamp(LEAST, MOST)
