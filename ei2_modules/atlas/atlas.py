"""A clip as layers: what `EI2_ATLAS` is. A value, never changed; an edit is another one.

Maps are kept as parameters, and everything that is as large as the clip is computed for some frames at a time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from . import spline
from .maps import Maps, Size
from .texture import Box, sample

FRAMES_AT_ONCE = 4  # of what is rendered
CHANGED = 1.5 / 255  # of a colour, from which on it is edited: a picture that went through a PNG is the same


@dataclass(frozen=True)
class Layer:
    """A picture, and where every frame finds itself in it."""

    maps: Maps
    box: Box
    texture: Tensor  # (3, rows, columns) in 0..1, filled
    observed: Tensor  # (rows, columns) bool: some frame shows it; elsewhere the texture is a guess
    edited: Tensor | None = None  # (rows, columns) in 0..1: how much of the texture is an edit; None, nothing

    def replaced(self, picture: Tensor, mask: Tensor | None = None) -> "Layer":
        """With another picture (3, rows, columns), where the mask (rows, columns) in 0..1 says so; None: everywhere.

        Both may be of another size.
        """
        size = self.box.rows, self.box.columns
        picture = _resized(picture, size).clamp(0, 1)
        mask = torch.ones(size) if mask is None else _resized(mask[None], size)[0].clamp(0, 1)
        edited = mask if self.edited is None else mask + (1 - mask) * self.edited
        return replace(self, texture=torch.lerp(self.texture, picture, mask), edited=edited)


@dataclass(frozen=True)
class Atlas:
    """Layers from front to back; the last is the background, which is seen where no alpha covers it."""

    size: Size
    layers: tuple[Layer, ...]
    alphas: tuple[Tensor, ...]  # (n, 1, h, w) uint8, 255 is opaque; of all layers but the last
    gains: Tensor | None = None  # (n, 3, rows + 3, columns + 3) splines: logarithms of what the light multiplies by
    clip: str = ""  # fingerprint of the frames that it was fitted to

    @property
    def frames(self) -> int:
        return len(self.layers[0].maps)

    def maps(self, frames: Sequence[int], layer: int) -> Tensor:
        """(m, h, w, 2): where the pixels of these frames lie on a layer's plane."""
        return self.layers[layer].maps[frames].dense(self.size)

    def alpha(self, frames: Sequence[int], layer: int) -> Tensor:
        """(m, 1, h, w) in 0..1; 1 for the background."""
        if layer % len(self.layers) == len(self.alphas):
            return torch.ones(len(frames), 1, *self.size)
        return self.alphas[layer][frames].float() / 255

    def seen(self, frames: Sequence[int]) -> list[Tensor]:
        """(m, 1, h, w) of every layer: how much of it is seen. They sum to 1."""
        return visible([self.alpha(frames, k) for k in range(len(self.layers))])

    def light(self, frames: Sequence[int]) -> Tensor | float:
        """What the light multiplies the layers' colours by, (m, 3, h, w)."""
        return 1.0 if self.gains is None else spline.surface(self.gains[frames], self.size).exp()

    def sample(self, frames: Sequence[int], layer: int, picture: Tensor | None = None) -> Tensor:
        """(m, c, h, w): a layer as these frames see it, without light.

        picture: (c, rows, columns) to be seen in the place of the layer's own, of any resolution.
        """
        found = self.layers[layer]
        return sample(found.texture if picture is None else picture, self.maps(frames, layer), found.box)

    def render(self, frames: Sequence[int]) -> Tensor:
        """(m, 3, h, w) in 0..1: these frames, put together from all layers."""
        parts = [seen * self.sample(frames, k) for k, seen in enumerate(self.seen(frames))]
        return (sum(parts) * self.light(frames)).clamp(0, 1)

    def over(self, clip: Tensor, frames: Sequence[int]) -> Tensor:
        """These frames of the clip it was fitted to, (m, 3, h, w), with what was edited drawn over them.

        Where nothing was, a pixel stays the clip's own, bit for bit (as Layered Neural Atlases renders edits).
        """
        light, found = self.light(frames), clip
        for k, seen in reversed(list(enumerate(self.seen(frames)))):
            layer = self.layers[k]
            if layer.edited is None:
                continue
            share = seen * self.sample(frames, k, layer.edited[None])
            drawn = (self.sample(frames, k) * light).clamp(0, 1)
            found = found + share * (drawn - clip)
        return found.clamp(0, 1)

    def chunks(self) -> Iterator[list[int]]:
        """All frames in order, some at a time: what is rendered for a whole clip goes through these."""
        for i in range(0, self.frames, FRAMES_AT_ONCE):
            yield list(range(i, min(i + FRAMES_AT_ONCE, self.frames)))

    def with_layer(self, index: int, layer: Layer) -> "Atlas":
        """The same with another layer."""
        layers = list(self.layers)
        layers[index] = layer
        return replace(self, layers=tuple(layers))


def _resized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(picture.shape[-2:]) == size:
        return picture
    mode = {"mode": "bilinear", "align_corners": False, "antialias": True}
    return F.interpolate(picture[None], size, **mode)[0]


def visible(alphas: list[Tensor]) -> list[Tensor]:
    """How much of every layer is seen, (m, 1, h, w) each: its alpha under what is in front.

    alphas: from front to back; the last, of the background, is 1 everywhere, so that the parts sum to 1.
    """
    seen, left = [], 1.0
    for alpha in alphas:
        seen.append(left * alpha)
        left = left * (1 - alpha)
    return seen
