"""Reads a picture of a scene without any learning: what is drawn, in which colours, where.

The background is a plane of colour, the object what differs from it. Its shape is that of the rendered outline it
overlaps best (intersection over union) after both are moved to one place and scaled to one area.
"""

from dataclasses import dataclass
from functools import cache
from math import pi

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ei2_modules.demo import scenes, vocabulary

COLOURS, SHAPES = vocabulary.COLOURS, vocabulary.SHAPES
ATTRIBUTES = ("colour", "background", "shape", "style")

CONTRAST = 0.4  # of the strongest difference from the background: where an object begins
CLEAR = 0.12  # difference that is an object wherever it is seen
FAINTEST = 0.05  # difference that can be an object at all
SMALLEST = 12  # px
GAIN = 1.1  # times its area that a body must grow for closed gaps to be gaps, and not the corners of a small cross
PREFER_LARGE = 0.3  # how much a mask's area counts beside its overlap with a shape
CELLS = 40  # px, side of the patch in which shapes are compared
REACH = 1.25  # half that side, in square roots of the area
PATTERNED = 0.5  # of the way to a texture's second colour: from there on an object is not plain
NOISE_SPREAD = 4.9  # from the median absolute deviation of normal noise to the distance of its 5th and 95th percentile
STRAIGHT = 0.5  # coherence of the gradients from which a pattern counts as stripes


@dataclass(frozen=True)
class Reading:
    """What a picture shows. Lengths in widths of the picture; all "" and nan where no object is found."""

    colour: str = ""
    background: str = ""
    shape: str = ""
    texture: str = ""
    style: str = ""
    x: float = float("nan")
    y: float = float("nan")
    area: float = 0.0  # share of the picture
    overlap: float = 0.0  # with the rendered shape, 0 to 1

    @property
    def look(self) -> tuple[str, str]:
        """What a style word decides."""
        return self.texture, self.style


def read(picture: Tensor, near: tuple[float, float] | None = None, ignore: Tensor | None = None) -> Reading:
    """Read a picture (h, w, 3) in 0..1. Of several objects the largest, or the one nearest to (x, y).

    ignore: (h, w) bool, pixels that are known to be neither object nor background.
    """
    picture = picture[..., :3].float().cpu()
    ground = _ground(picture)
    if ignore is not None:
        picture = torch.where(ignore[..., None], ground, picture)
    difference = (picture - ground).norm(dim=-1)
    strongest = torch.quantile(difference.flatten(), 0.99).item()
    body, shape, overlap = _object(difference, strongest, near)
    if body.sum() < SMALLEST:
        return Reading(background=_name(ground.mean(dim=(0, 1)))[1])
    painted = (difference > min(CONTRAST * strongest, CLEAR)) & body
    hollow = _is_hollow(difference > CONTRAST * strongest, body)
    style, colour, background = _colours(picture, ground, painted if hollow else _flat(picture, painted))
    texture = "plain" if hollow else _texture(picture, body, _noise(picture - ground, body), style, colour)
    style = "outline" if hollow and style == "plain" else style
    y, x = ((body.nonzero().float().mean(dim=0) + 0.5) / len(body)).tolist()
    return Reading(colour, background, shape, texture, style, x, y, body.float().mean().item(), overlap)


def _object(difference: Tensor, strongest: float, near) -> tuple[Tensor, str, float]:
    """(mask, shape, overlap). Low contrast asks for a low threshold, blurred edges for a high one, stripes in the
    colour of the background for closing, thin arms for none: the reading that fits a shape best is taken."""
    if strongest < FAINTEST:
        return torch.zeros_like(difference, dtype=torch.bool), "", 0.0
    found = []
    for threshold in {CONTRAST * strongest, min(CONTRAST * strongest, CLEAR)}:
        bodies = [_choose(_filled(difference > threshold, closing), near) for closing in (0, 1, 2)]
        gained = [body for body in bodies[1:] if body.sum() > GAIN * bodies[0].sum()]
        found += [(body, *_shape(body)) for body in [bodies[0], *gained] if body.sum() >= SMALLEST]
    if not found:
        return torch.zeros_like(difference, dtype=torch.bool), "", 0.0
    largest = max(int(body.sum()) for body, _, _ in found)
    return max(found, key=lambda f: f[2] * (int(f[0].sum()) / largest) ** PREFER_LARGE)


def _ground(picture: Tensor) -> Tensor:
    """The background as a plane of colour, fitted to the pixels that lie on it."""
    size = len(picture)
    axis = torch.linspace(-1, 1, size)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    design = torch.stack([torch.ones_like(x), x, y], dim=-1).flatten(0, 1)
    pixels = picture.flatten(0, 1)
    edge = torch.maximum(x.abs(), y.abs()).flatten() > 1 - 7 / size
    plane = picture.new_zeros(3, 3)
    plane[0] = pixels[edge].median(dim=0).values
    for reach in (0.3, 0.2, 0.12, 0.1, 0.1):
        on_it = (pixels - design @ plane).norm(dim=-1) < reach
        if reach > 0.15:
            on_it &= edge
        if on_it.sum() > 50:
            plane = torch.linalg.lstsq(design[on_it], pixels[on_it]).solution
    return (design @ plane).view_as(picture)


def _filled(mask: Tensor, closing: int) -> Tensor:
    """Small gaps closed and holes filled; nothing is closed towards the picture's edge."""
    room = 2 * closing + 1
    wide = F.pad(mask, (room,) * 4)
    closed = _inner(_grown(wide, closing), closing)[room:-room, room:-room] | mask
    return torch.from_numpy(ndimage.binary_fill_holes(closed.numpy()))


def _choose(mask: Tensor, near: tuple[float, float] | None) -> Tensor:
    """The largest connected part, or of the larger ones the one nearest to a point."""
    parts = _parts(mask)
    if not parts:
        return mask
    largest = max(int(part.sum()) for part in parts)
    large = [part for part in parts if part.sum() > 0.25 * largest]
    if near is None:
        return max(large, key=lambda part: int(part.sum()))
    point = torch.tensor([near[1], near[0]]) * len(mask)
    return min(large, key=lambda part: (part.nonzero().float().mean(dim=0) + 0.5 - point).norm().item())


def _parts(mask: Tensor) -> list[Tensor]:
    """The connected parts of a mask, over corners too."""
    labels, count = ndimage.label(mask.numpy(), np.ones((3, 3)))
    return [torch.from_numpy(labels == i + 1) for i in range(count)]


def _shape(body: Tensor) -> tuple[str, float]:
    names, templates = _templates()
    patch = _normalised(body.float())
    overlap = (templates & patch).sum(dim=(1, 2)) / (templates | patch).sum(dim=(1, 2))
    best = int(overlap.argmax())
    return names[best], overlap[best].item()


@cache
def _templates() -> tuple[list[str], Tensor]:
    turns = {"circle": 1, "square": 15, "triangle": 20, "star": 12, "cross": 15}
    symmetry = {"circle": 1, "square": 4, "triangle": 3, "star": 5, "cross": 4}
    names = [shape for shape in SHAPES for _ in range(turns[shape])]
    angles = [2 * pi / symmetry[shape] * i / turns[shape] for shape in SHAPES for i in range(turns[shape])]
    drawn = [
        scenes.Scene((scenes.Thing(s, "red", radius=0.3, angle=a),), "white")
        for s, a in zip(names, angles, strict=True)
    ]
    return names, torch.stack([_normalised(mask) for mask in scenes.render(drawn)[1]])


def _normalised(mask: Tensor) -> Tensor:
    """A mask moved to the middle of a patch and scaled to one area, as bool: soft rims would favour plump shapes."""
    size = len(mask)
    area = mask.sum()
    axis = torch.arange(size) + 0.5
    x, y = (mask.sum(dim=0) * axis).sum() / area, (mask.sum(dim=1) * axis).sum() / area
    steps = torch.linspace(-REACH, REACH, CELLS) * area.sqrt()
    grid = torch.stack(torch.meshgrid((x + steps) / size, (y + steps) / size, indexing="xy"), dim=-1) * 2 - 1
    return F.grid_sample(mask[None, None], grid[None], align_corners=False)[0, 0] > 0.5


def _is_hollow(painted: Tensor, body: Tensor) -> bool:
    """Painted along the rim, bare inside."""
    line = round(scenes.LINE * len(body) / scenes.SIZE)
    inside = body
    while (deeper := _inner(inside, 1)).sum() >= max(4, 0.02 * body.sum()):
        inside = deeper
    rim = body & ~_inner(body, line - 1)
    bare = [part for part in _parts(_inner(body, 2) & ~painted) if part.sum() >= 3]
    return bool(painted[inside].float().mean() < 0.5 and painted[rim].float().mean() > 0.6 and len(bare) <= 2)


def _colours(picture: Tensor, ground: Tensor, painted: Tensor) -> tuple[str, str, str]:
    """(style, colour of the object, colour of the background): of all styles the one whose colours fit best."""
    pixels = picture[painted]
    found = []
    for style in ("plain", "night", "pastel"):
        far, background = _name(ground.mean(dim=(0, 1)), style)
        distance, index = torch.cdist(pixels, _palette(style)).min(dim=1)
        votes = index.bincount(minlength=len(COLOURS))
        colour = int(votes.argmax())
        fit = far + distance[index == colour].mean().item()
        found.append((fit, style, list(COLOURS)[colour], background))
    return min(found)[1:]


@cache
def _palette(style: str) -> Tensor:
    return scenes.develop(torch.tensor(list(COLOURS.values())), style).clamp(0, 1)


def _name(colour: Tensor, style: str = "plain") -> tuple[float, str]:
    """(distance, name) of the nearest colour."""
    distance = (_palette(style) - colour).norm(dim=1)
    return distance.min().item(), list(COLOURS)[int(distance.argmin())]


def _noise(difference: Tensor, body: Tensor) -> Tensor:
    """Median absolute deviation of the background, per channel."""
    around = ~_grown(body, 2)
    return difference[around].abs().median(dim=0).values if around.any() else torch.zeros(3)


def _texture(picture: Tensor, body: Tensor, noise: Tensor, style: str, colour: str) -> str:
    """Plain, striped or dotted: by how far the colours inside spread beyond the noise around them, and how parallel
    their gradients are."""
    inside = _inner(body, 2)
    if inside.sum() < 16:
        return "plain"
    pixels = picture[inside]
    low, high = torch.quantile(pixels, 0.05, dim=0), torch.quantile(pixels, 0.95, dim=0)
    spread = (high - low).norm().item()
    first, second = (_palette(style)[list(COLOURS).index(name)] for name in (colour, scenes.second_colour(colour)))
    enough = PATTERNED * (first - second).norm().item()
    if spread**2 - (NOISE_SPREAD * noise).square().sum().item() < enough**2:
        return "plain"
    axis = (high - low) / spread
    brightness = picture @ axis
    right, down = torch.gradient(brightness, dim=(1, 0))
    right, down = right[inside], down[inside]
    xx, yy, xy = right.square().sum(), down.square().sum(), (right * down).sum()
    coherence = ((xx - yy).square() + 4 * xy.square()).sqrt() / (xx + yy)
    return "striped" if coherence > STRAIGHT else "dotted"


def _grown(mask: Tensor, by: int) -> Tensor:
    return torch.from_numpy(ndimage.maximum_filter(mask.numpy(), 2 * by + 1))


def _inner(mask: Tensor, by: int) -> Tensor:
    """Shrunk; beyond the picture's edge the mask is thought to go on."""
    return torch.from_numpy(ndimage.minimum_filter(mask.numpy(), 2 * by + 1))


def _flat(picture: Tensor, mask: Tensor) -> Tensor:
    """The half of a mask where the picture changes least: no rims, no borders of stripes and dots."""
    channels = picture.permute(2, 0, 1)[None]
    change = F.max_pool2d(channels, 3, 1, 1) + F.max_pool2d(-channels, 3, 1, 1)
    change = change.sum(dim=1)[0]
    return mask & (change <= change[mask].median())


def right(reading: Reading, scene) -> dict[str, bool]:
    """Which of the scene's attributes a reading has right; style means texture and style together."""
    thing = scene.things[0]
    return {
        "colour": reading.colour == thing.colour,
        "background": reading.background == scene.background,
        "shape": reading.shape == thing.shape,
        "style": reading.look == (thing.texture, scene.style),
    }
