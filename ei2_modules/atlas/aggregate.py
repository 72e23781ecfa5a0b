"""Edited key frames to one picture of a layer (StableVideo, section 3.4).

What a key frame does not show is not counted: the released median takes it as black, and of two values the lower.
Texels that no key frame shows keep the layer's own colours.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .atlas import CHANGED, Atlas, Layer
from .key_frames import KeyFrames
from .propagate import splatted
from .refine import AfterStep, View, refined
from .texture import SEEN, fill

TOUCHED = 0.02  # of what falls on a texel that an edit must have changed


@dataclass(frozen=True)
class Parts:
    """Key frames on a layer's picture, each by itself."""

    pictures: Tensor  # (k, 3, rows, columns)
    covers: Tensor  # (k, rows, columns) pixels that fell on each texel


def mean(parts: Parts) -> Tensor:
    """(3, rows, columns): each weighs by its cover; 0 where nothing is seen."""
    weight = parts.covers[:, None]
    return (parts.pictures * weight).sum(0) / weight.sum(0).clamp(min=1e-6)


def median(parts: Parts) -> Tensor:
    """(3, rows, columns): of those that show a texel, the mean of both middles where they are even."""
    unseen = (parts.covers <= SEEN)[:, None]
    ordered = parts.pictures.masked_fill(unseen, torch.inf).sort(0).values
    count = (~unseen).sum(0).expand(parts.pictures.shape[1:])[None]
    middles = ordered.gather(0, ((count - 1) // 2).clamp(min=0)) + ordered.gather(0, count // 2)
    return torch.where(count > 0, middles / 2, 0)[0]


def matched_mean(parts: Parts) -> Tensor:
    """`mean`, after each key frame's colours are shifted to agree with the others' where both show a texel."""
    shifts = offsets(parts)
    return mean(Parts(parts.pictures + shifts[..., None, None], parts.covers))


def offsets(parts: Parts) -> Tensor:
    """(k, 3) that make the key frames agree best: sum of w (p_i + o_i - p_j - o_j)^2 least, sum of o_i zero.

    w, of a texel, is the smaller cover of both.
    """
    k = len(parts.covers)
    weights, gaps = torch.zeros(k, k), torch.zeros(k, k, 3)
    for i in range(k):
        for j in range(k):
            w = torch.minimum(parts.covers[i], parts.covers[j]) * (i != j)
            weights[i, j] = w.sum()
            gaps[i, j] = ((parts.pictures[i] - parts.pictures[j]) * w).sum((1, 2))
    normal = torch.diag(weights.sum(1)) - weights  # singular; in double the rounding of its sums would not be cut off
    return -torch.linalg.pinv(normal, hermitian=True) @ gaps.sum(1)


MEANS: dict[str, Callable[[Parts], Tensor]] = {"matched mean": matched_mean, "mean": mean, "median": median}
NETWORK = "network"  # begins with the matched mean
METHODS = (*MEANS, NETWORK)


def aggregated(
    atlas: Atlas,
    keys: KeyFrames,
    edited: Tensor,
    frames: Tensor,
    method: str,
    device: torch.device | str = "cpu",
    after_step: AfterStep | None = None,
) -> tuple[Layer, Tensor]:
    """(the layer with the edit, (rows, columns) in 0..1: its texels that the key frames show).

    edited, frames: (k, 3, h, w), the key frames after the edit and before it. Where no pixel differs, nothing changes.
    """
    layer = atlas.layers[keys.layer]
    pairs = zip(keys.frames, edited, (edited - frames).abs().amax(1, keepdim=True) > CHANGED, strict=True)
    found = [splatted(atlas, keys.layer, t, torch.cat([new, differs.float()])) for t, new, differs in pairs]
    pictures, covers = (torch.stack(part) for part in zip(*found, strict=True))
    parts, cover = Parts(pictures[:, :3], covers), covers.sum(0)
    picture = fill(MEANS.get(method, matched_mean)(parts), cover)
    if method == NETWORK:
        views = [_view(atlas, keys.layer, t, new) for t, new in zip(keys.frames, edited, strict=True)]
        picture = refined(picture, layer.box, views, device, after_step)
    known = closed(cover > SEEN)
    share = fill(mean(Parts(pictures[:, 3:], covers)), cover)[0]
    return layer.replaced(picture, (known & (share > TOUCHED)).float()), known.float()


def _view(atlas: Atlas, layer: int, t: int, edited: Tensor) -> View:
    return View(atlas.maps([t], layer), edited[None], atlas.seen([t])[layer], atlas.light([t]))


def closed(seen: Tensor) -> Tensor:
    """(rows, columns) bool without gaps of a texel between texels that are seen."""
    wide = F.max_pool2d(F.pad(seen[None, None].float(), (2,) * 4), 3, 1)
    return -F.max_pool2d(-wide, 3, 1)[0, 0] > 0.5
