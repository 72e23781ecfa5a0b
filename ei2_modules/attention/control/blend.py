"""Local blend (Prompt-to-Prompt, section 4; Video-P2P for clips): an edit changes only where its words are seen.

Published for 16x16 maps of eight heads and latents of 64x64; here for any sizes, heads and several levels of a UNet.
"""

from collections.abc import Sequence
from math import log2

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import EI2Error

Size = tuple[int, int]
FINEST = (1.0, 1.0)  # maps as large as the latent; on the miniature model the coarser level shows nothing


class WordMaps:
    """Where some words of a text are seen in every frame of a clip, summed over layers and steps."""

    def __init__(self, frames: int, size: Size, levels: tuple[float, float] = FINEST):
        """size: (h, w) of the latent. levels: least and greatest side of a map that counts, as shares of the latent's:
        powers of 1/2. Stable Diffusion's published 16x16 maps of 64x64 latents are (0.25, 0.25)."""
        self.frames, self.size, self.levels = frames, size, levels
        self.sums: dict[Size, Tensor] = {}
        self.passed: set[Size] = set()

    def add(self, maps: Tensor, size: Size, frames: Sequence[int] | None = None) -> None:
        """maps: (n, l) of one layer, mean over heads and words (`maps.word_maps`), l = h·w of `size`.

        frames: which of the clip's n they are, when a window of it; all when not given.
        """
        if not self.counts(size):
            self.passed.add(size)
            return
        total = self.sums.setdefault(size, maps.new_zeros(self.frames, maps.shape[1]))
        total[list(range(self.frames) if frames is None else frames)] += maps

    def counts(self, size: Size) -> bool:
        """Odd sides are rounded up at each level, so the share is read off to the nearest power of 1/2."""
        share = 2.0 ** round(log2(size[0] * size[1] / (self.size[0] * self.size[1])) / 2)
        return self.levels[0] <= share <= self.levels[1]

    def relative(self, pool: bool = True, from_least: bool = False, at: Size | None = None) -> Tensor:
        """(n, 1, h, w), 1 where a frame's map is greatest.

        pool: the greatest of 3x3 neighbours, on each level's own grid. from_least: 0 where a frame's map is least;
        else 0 is nothing seen. at: (h, w), the latent's when not given. Raises EI2Error if no map counted.
        """
        if not self.sums:
            raise EI2Error(
                f"no attention map of sides {self.levels[0]:g} to {self.levels[1]:g} of the latent's "
                f"({self.size[0]}x{self.size[1]}) was seen, only {_listed(self.passed)}: choose other levels."
            )
        maps = sum(self._resized(total, size, pool, at or self.size) for size, total in self.sums.items())
        if from_least:
            maps = maps - maps.amin(dim=(2, 3), keepdim=True)
        return maps / maps.amax(dim=(2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)

    def _resized(self, total: Tensor, size: Size, pool: bool, to: Size) -> Tensor:
        """Of places that fall together on a smaller grid the first is taken, as published."""
        maps = total.view(self.frames, 1, *size)
        mode = "nearest" if to[0] < size[0] else "nearest-exact"
        return F.interpolate(dilate(maps, 1) if pool else maps, size=to, mode=mode)


class LocalBlend:
    """The mask of an edit's words, source and target, and what it does to the edit's latents.

    Maps are added to `words`, or to `negative` for words whose place must not change, by side: "source", "target".
    """

    def __init__(
        self,
        frames: int,
        size: Size,
        threshold: float = 0.3,
        dilation: int = 0,
        levels: tuple[float, float] = FINEST,
    ):
        """threshold: of a frame's greatest value (0.3 as published). dilation: px of the latent that the mask grows."""
        self.threshold, self.dilation = threshold, dilation
        self.words, self.negative = (
            {side: WordMaps(frames, size, levels) for side in ("source", "target")} for _ in range(2)
        )

    def mask(self) -> Tensor:
        """(n, 1, h, w), 1 where the clip may change: where either side's words are seen and no negative word is."""
        seen = [maps for maps in self.words.values() if maps.sums] or [self.words["source"]]  # raises: nothing seen
        mask = torch.stack([maps.relative() > self.threshold for maps in seen]).any(0)
        for maps in self.negative.values():
            if maps.sums:
                mask &= maps.relative(pool=False) <= self.threshold  # not pooled, as published
        return dilate(mask.float(), self.dilation)

    def __call__(self, x: Tensor, source: Tensor) -> Tensor:
        """x_src + m (x - x_src): latents (n, c, h, w) of the edit and of its source at one sigma."""
        source = source.to(x)
        return source + self.mask().to(x) * (x - source)


def dilate(maps: Tensor, radius: int) -> Tensor:
    """The greatest value within a square of `radius` px around each: (n, 1, h, w)."""
    return F.max_pool2d(maps, 2 * radius + 1, 1, radius) if radius else maps


def _listed(sizes: set[Size]) -> str:
    return ", ".join(f"{h}x{w}" for h, w in sorted(sizes)) or "none at all"
