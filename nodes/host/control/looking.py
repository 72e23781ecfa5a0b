"""Where a model sees words in a clip: passes over the source that change nothing and add up attention maps."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from ....ei2_modules.attention.control.blend import WordMaps
from ....ei2_modules.attention.control.maps import word_maps

LOOKS = 5  # steps of the source that say where a word is seen: all 25 say hardly more


def looks(steps: int) -> list[int]:
    """Places in the schedule at which to look: spread evenly."""
    return sorted({max(1, round(steps * (i + 0.5) / LOOKS)) for i in range(LOOKS)})


class Looking:
    """At some words together, on the levels that a local blend goes by."""

    def __init__(self, words: WordMaps, tokens: list[int]):
        self.words, self.tokens = words, tokens

    def self_attention(self, attend: Callable, q: Tensor, k: Tensor, extra: dict) -> Tensor:
        return attend(q, k)

    def temporal_attention(self, q: Tensor, k: Tensor, extra: dict) -> tuple[Tensor, Tensor]:
        return q, k

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, is_plain: bool) -> Tensor:
        see(self.words, q, k, self.tokens, extra)
        return out

    def features(self, h: Tensor, options: dict) -> Tensor:
        return h


class LookingEverywhere(Looking):
    """At each of several words, in every block of the UNet."""

    def __init__(self, frames: int, words: dict[str, list[int]]):
        self.frames, self.words = frames, words
        self.sums: dict[tuple[str, str], Tensor] = {}  # (block, word) -> (n, 1, h, w)

    def text_attention(self, out: Tensor, q: Tensor, k: Tensor, v: Tensor, extra: dict, is_plain: bool) -> Tensor:
        block, size = "{} {}".format(*extra["block"]), tuple(extra["activations_shape"][-2:])
        frames = window_of(extra) or range(self.frames)
        for word, tokens in self.words.items():
            maps = word_maps(q, k, extra["n_heads"], tokens).view(-1, 1, *size)
            total = self.sums.setdefault((block, word), maps.new_zeros(self.frames, 1, *size))
            total[list(frames)] += maps
        return out

    def blocks(self) -> list[str]:
        """In the order of the UNet."""
        return list(dict.fromkeys(block for block, _ in self.sums))

    def seen(self, block: str, word: str, size: tuple[int, int]) -> Tensor:
        """(n, h, w) of `size`."""
        return F.interpolate(self.sums[block, word], size=size, mode="nearest-exact")[:, 0]

    def sharpness(self, block: str, word: str) -> float:
        """How unevenly a word is seen: the greatest value of a frame's map over its mean, mean over frames."""
        maps = self.sums[block, word].flatten(1)
        return float((maps.amax(1) / maps.mean(1).clamp(min=1e-12)).mean())


def see(
    words: WordMaps, q: Tensor, k: Tensor, tokens: list[int], extra: dict, maps: Callable[..., Tensor] = word_maps
) -> None:
    """Add where tokens are seen in one layer of a call. maps: (q, k, heads, tokens) -> (n, l)."""
    size, window = tuple(extra["activations_shape"][-2:]), window_of(extra)
    if tokens and words.counts(size):
        words.add(maps(q, k, extra["n_heads"], tokens), size, window and list(window))


def window_of(options: dict) -> tuple[int, ...] | None:
    """The frames of the clip that a call holds, where it is cut into windows."""
    window = options.get("context_window")
    return None if window is None else tuple(window.index_list)


def relative(maps: Tensor) -> Tensor:
    """(n, h, w), of each frame from 0, where its map is least, to 1, where it is greatest."""
    maps = maps - maps.amin((1, 2), keepdim=True)
    return maps / maps.amax((1, 2), keepdim=True).clamp(min=1e-12)
