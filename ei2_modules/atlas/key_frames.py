"""Key frames: the few that are edited by themselves, chosen so that together they show a layer whole.

StableVideo (Chai et al. 2023, section 3.3) leaves the choice to the user; here it is the greedy one for covering a set,
which is within 1 - 1/e of the best.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EI2Error
from .atlas import Atlas
from .checks import listed
from .texture import SEEN, Splat

LEAST_GAIN = 0.03  # of the texels that any frame shows: what another key frame must add
SEES = 0.5  # of a pixel that a layer must fill to be seen there


@dataclass(frozen=True)
class KeyFrames:
    """Which frames are edited, from 0, in the order in which they are, and which layer of them."""

    layer: int
    frames: tuple[int, ...]


def named(text: str, atlas: Atlas, layer: int) -> KeyFrames:
    """ "0, 8, 23", in the user's order. Raises EI2Error for what is no frame that sees the layer."""
    words = [word for word in re.split(r"[\s,;]+", text) if word]
    bad = [word for word in words if not word.isdecimal() or int(word) >= atlas.frames]
    if bad or not words:
        raise EI2Error(
            f"Key frames {text!r}: {', '.join(bad) or 'nothing'} cannot be one. Give numbers from 0 to "
            f"{atlas.frames - 1} with commas, such as 0, {atlas.frames // 2}, {atlas.frames - 1}."
        )
    frames = [int(word) for word in words]
    twice = sorted({t for t in frames if frames.count(t) > 1})
    if twice:
        raise EI2Error(f"Key frames {text!r}: {', '.join(map(str, twice))} is there more than once. Name each once.")
    return checked(KeyFrames(layer, tuple(frames)), atlas)


def checked(keys: KeyFrames, atlas: Atlas) -> KeyFrames:
    """Those chosen for this atlas, or for one of the same clip. Raises EI2Error."""
    if keys.layer >= len(atlas.layers) or max(keys.frames) >= atlas.frames:
        raise EI2Error(
            f"The key frames ({', '.join(map(str, keys.frames))} of layer {keys.layer + 1}) were chosen for another "
            f"atlas: this one has {atlas.frames} frames and {len(atlas.layers)} layers. Wire the same to both nodes."
        )
    blind = [t for t in keys.frames if not (atlas.seen([t])[keys.layer] > SEES).any()]
    if blind:
        raise EI2Error(
            f"The layer is not seen in {listed(blind)}. Name frames that show it, or leave `frames` of Atlas Key "
            "Frames empty: they are found."
        )
    return keys


def shown(atlas: Atlas, layer: int) -> Tensor:
    """(n, rows * columns) bool: the texels that every frame shows."""
    found = []
    for t in range(atlas.frames):
        splat = Splat(0, atlas.layers[layer].box, atlas.layers[layer].texture)
        seen = atlas.seen([t])[layer][0]
        splat.add(seen[:0], (seen[0] > SEES).float(), atlas.maps([t], layer)[0])
        found.append(splat.cover.flatten() > SEEN)
    return torch.stack(found)


def chosen(shown: Tensor, most: int, least: float = LEAST_GAIN) -> list[tuple[int, float]]:
    """(frame, share that it adds) of up to `most`, in the order in which they are chosen; the first of equals.

    shown: (n, texels) bool. Each adds the most texels that no earlier one shows, and at least a share of `least` of
    all that any frame shows; the first always counts. Raises EI2Error where no frame shows any.
    """
    left = shown.any(0)
    total = int(left.sum())
    if not total:
        raise EI2Error("No frame shows this layer: its alpha is empty everywhere. Fit the atlas with a closer mask.")
    frames = []
    while len(frames) < min(most, len(shown)):
        gains = (shown & left).sum(1)
        best = int(gains.argmax())
        if frames and gains[best] < max(least * total, 1):
            break
        frames.append(best)
        left = left & ~shown[best]
    return added(shown, frames)


def added(shown: Tensor, frames: Sequence[int]) -> list[tuple[int, float]]:
    """(frame, share that it adds) of frames in a given order, as `chosen` gives them."""
    left, found = shown.any(0), []
    total = int(left.sum())
    for t in frames:
        found.append((t, int((shown[t] & left).sum()) / max(total, 1)))
        left = left & ~shown[t]
    return found


def report(picks: Sequence[tuple[int, float]], most: int) -> str:
    """In words, of what `chosen` found."""
    frames = ", ".join(str(t) for t in sorted(t for t, _ in picks))
    lines = [f"key frames {frames}: {sum(share for _, share in picks):.0%} of what any frame shows of the layer"]
    lines += [f"frame {t} {'adds' if i else 'shows'} {share:.1%}" for i, (t, share) in enumerate(picks)]
    if len(picks) < most:
        lines.append(f"{len(picks)} of {most} asked for: another would add less than {LEAST_GAIN:.0%}")
    return "\n".join(lines)
