"""Fine-coarse frame attention (FFAM), paper section 4.2, eq. 10, and the attentions it is compared with.

Each takes the place of self-attention in a pretrained transformer block and differs only in which
tokens a query may see. Projections come from the pretrained block; this file never holds a weight.

Letters: b clips in the batch (cond and uncond are two clips and never mix), n frames, l = h·w tokens
of one frame, m coarse tokens of one frame, d channels. The batch is clip-major: (b n) l d.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .errors import EI2Error

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def frame_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    kind: str,
    heads: int,
    frames: int,
    size: tuple[int, int],
    ratio: int = 2,
    attend: Attend | None = None,
) -> Tensor:
    """softmax(q Kᵀ / sqrt(d_head)) V, where K and V are the tokens that `kind` lets each frame see.

    q, k, v: ((b n), l, d), already projected, one frame per row. Returns ((b n), l, d).
    size: (h, w) of the map, h·w = l of k. ratio: r of eq. 10, used by FFAM alone.
    attend: (q, k, v, heads) -> out, plain attention; PyTorch's own when not given.
    """
    if k.shape[0] % frames or k.shape[1] != size[0] * size[1]:
        raise EI2Error(
            f"keys of shape {tuple(k.shape)} do not hold whole clips of {frames} frames at {size[0]}x{size[1]} tokens."
        )
    visible = VISIBLE_TOKENS[kind]
    attend = attend or scaled_dot_product
    return attend(q, visible(k, frames, size, ratio), visible(v, frames, size, ratio), heads)


def fine_and_coarse(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Tensor:
    """concat[z_i, downsample(z_j, r) for j != i], eq. 10: ((b n), l, d) -> ((b n), l + (n-1)·m, d).

    A frame's own coarse tokens are left out. Pooling after the projection equals pooling before it,
    because the projections of attn1 are linear without bias, and projects every token only once.
    """
    if frames == 1:
        return x
    coarse = rearrange(average_pool(x, size, ratio), "(b n) m d -> b n m d", n=frames)
    others = coarse[:, other_frames(frames, x.device)]  # b n (n-1) m d
    return torch.cat([x, rearrange(others, "b n j m d -> (b n) (j m) d")], dim=1)


def first_and_previous(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Tensor:
    """Tune-A-Video's sparse-causal attention (SCA): frame 0 and frame max(i - 1, 0), never frame i itself."""
    clip = rearrange(x, "(b n) l d -> b n l d", n=frames)
    previous = torch.cat([clip[:, :1], clip[:, :-1]], dim=1)
    return rearrange(torch.cat([clip[:, :1].expand_as(clip), previous], dim=2), "b n l d -> (b n) l d")


def first_frame(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Tensor:
    """Only frame 0, as Video-P2P's first stage."""
    clip = rearrange(x, "(b n) l d -> b n l d", n=frames)
    return rearrange(clip[:, :1].expand_as(clip), "b n l d -> (b n) l d")


def all_frames(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Tensor:
    """Every token of every frame: full spatio-temporal attention."""
    clip = rearrange(x, "(b n) l d -> b (n l) d", n=frames)
    return clip.repeat_interleave(frames, dim=0)


def own_frame(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Tensor:
    """Untouched self-attention, frame by frame."""
    return x


VISIBLE_TOKENS = {
    "FFAM": fine_and_coarse,
    "SCA": first_and_previous,
    "first-frame": first_frame,
    "dense": all_frames,
    "per-frame": own_frame,
}


def average_pool(x: Tensor, size: tuple[int, int], ratio: int) -> Tensor:
    """Mean over r x r tokens of each map: (b, h·w, d) -> (b, ceil(h/r)·ceil(w/r), d).

    Windows over the edge average the tokens that exist; a side shorter than r becomes one token.
    """
    h, w = size
    window = (min(ratio, h), min(ratio, w))
    maps = rearrange(x, "b (h w) d -> b d h w", h=h, w=w)
    return rearrange(F.avg_pool2d(maps, window, ceil_mode=True, count_include_pad=False), "b d h w -> b (h w) d")


def other_frames(frames: int, device: torch.device) -> Tensor:
    """Row i lists every frame but i, in order: (n, n-1)."""
    j = torch.arange(frames - 1, device=device)
    i = torch.arange(frames, device=device)[:, None]
    return j + (j >= i)


def scaled_dot_product(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """Multi-head attention of PyTorch: q (b, l, d), k and v (b, s, d) -> (b, l, d)."""
    q, k, v = (rearrange(x, "b l (h d) -> b h l d", h=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v), "b h l d -> b l (h d)")
