"""Long clips in windows of frames, and the anchors that tie the windows together (ours; the paper stops at 8 frames).

A clip longer than a window goes through the UNet window by window. The windows of one step do not overlap, and
those of the next lie elsewhere: two frames that a border parts at one step are together at most others, at no cost.
A few anchors, frames spread over the whole clip, are looked at by every window as FFAM looks at other frames, only
coarser, since they are farther away.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from itertools import pairwise

import torch
from einops import rearrange
from torch import Tensor

from .core import average_pool

ANCHOR_FRAMES = 4
OFFSETS = (0.0, 0.5, 0.25, 0.625, 0.375, 0.75)  # of a window; none leaves less than a quarter of one at an end
COARSER = 2  # anchors are pooled by so many times r


def windows(frames: int, length: int, turn: int = 0) -> list[list[int]]:
    """Which frames go together: as few windows of at most `length` as there can be, as even as can be.

    turn: which of the ways to lay them; by OFFSETS the borders lie so much of a window further on.
    """
    count = -(-frames // length)
    offset = OFFSETS[turn % len(OFFSETS)] if count > 1 else 0.0
    borders = sorted({0, *(int((i + offset) * frames / count + 0.5) for i in range(count)), frames})
    return [list(range(a, b)) for a, b in pairwise(borders)]


def anchor_frames(frames: int) -> list[int]:
    """Frames spread evenly over a clip, each in the middle of its share."""
    count = min(ANCHOR_FRAMES, frames)
    return [int((i + 0.5) * frames / count) for i in range(count)]


class Anchors:
    """Keys and values of the anchors at every attention of one step, recorded once and seen by every window."""

    def __init__(self, frames: Sequence[int], ratio: int):
        self.frames, self.ratio = list(frames), ratio * COARSER
        self.recorded: dict[Hashable, tuple[Tensor, Tensor]] = {}
        self._window: Sequence[int] | None = None  # that is being run
        self._met: Counter[Hashable] = Counter()

    def parts(self, place: Hashable, texts: Sequence[Hashable], window: Sequence[int]) -> list[Hashable]:
        """A name for each of the clips in a batch: its text, and the how-manieth of this text at this place it is.

        Nodes that cut pictures into tiles run a window tile by tile, in one call or several, always in one order.
        """
        if window is not self._window:
            self._window, self._met = window, Counter()
        found = []
        for text in texts:
            found.append((text, self._met[place, text]))
            self._met[place, text] += 1
        return found

    def record(self, place: Hashable, texts: Sequence[Hashable], k: Tensor, v: Tensor, size: tuple[int, int]) -> None:
        """Keep what the window of the anchors themselves has at this place of the UNet.

        k, v: ((b n), l, d), where b goes over `texts` (cond and uncond have anchors of their own).
        """
        for text, *found in zip(
            texts, self._coarse(k, len(texts), size), self._coarse(v, len(texts), size), strict=True
        ):
            self.recorded[place, text] = tuple(found)

    def outside(
        self, place: Hashable, texts: Sequence[Hashable], window: Sequence[int]
    ) -> tuple[Tensor, Tensor] | None:
        """What a window sees of the anchors outside it: keys and values (b, s, d), or None for nothing."""
        outside = [i for i, frame in enumerate(self.frames) if frame not in window]
        found = [self.recorded.get((place, text)) for text in texts]
        if not outside or None in found:
            return None
        return tuple(torch.stack([rearrange(pair[i][outside], "a m d -> (a m) d") for pair in found]) for i in (0, 1))

    def _coarse(self, x: Tensor, texts: int, size: tuple[int, int]) -> Tensor:
        return rearrange(average_pool(x, size, self.ratio), "(b a) m d -> b a m d", b=texts)
