"""Plain attention, and the layouts of a clip that all kinds of attention share.

Letters: b clips in the batch (cond and uncond are two clips and never mix), n frames, l = h·w tokens of one frame,
d channels. The batch is clip-major: (b n) l d.
"""

from collections.abc import Callable

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]  # (q, k, v, heads) -> out


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention of PyTorch: q (b, l, d), k and v (b, s, d) -> (b, l, d)."""
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")


def by_clip(x: Tensor, frames: int) -> Tensor:
    return rearrange(x, "(b n) l d -> b n l d", n=frames)


def by_frame(clip: Tensor) -> Tensor:
    return rearrange(clip, "b n l d -> (b n) l d")


def average_pool(x: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """Mean over r x r tokens of each map: (b, h·w, d) -> (b, ceil(h/r)·ceil(w/r), d).

    Windows over the edge average the tokens that exist; a side shorter than r becomes one token.
    """
    h, w = size
    window = (min(ratio, h), min(ratio, w))
    maps = rearrange(x, "b (h w) d -> b d h w", h=h, w=w)
    return rearrange(F.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False), "b d h w -> b (h w) d")
