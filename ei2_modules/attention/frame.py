"""Fine-coarse frame attention (FFAM), paper section 4.4, eq. 10, and the attentions it is compared with.

Each takes the place of self-attention in a pretrained transformer block and differs only in which
tokens a query may see: one row of ATTENTIONS a kind. Projections come from the pretrained block; this file never holds
a weight. Letters as in core.py, and m coarse tokens of one frame.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from ..errors import EI2Error
from .core import Attend, average_pool, by_clip, by_frame, scaled_dot_product

Seen = Callable[[slice], Tensor]  # some frames of every clip -> the tokens each of them sees, ((b n), s, d)
SMALL = 2**20  # numbers in k: below it a loop over frames costs more time than a copy costs memory


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
    outside: tuple[Tensor, Tensor] | None = None,
    attend: Attend | None = None,
) -> Tensor:
    """softmax(q Kᵀ / sqrt(d_head)) V, where K and V are the tokens that `kind` lets each frame see.

    q, k, v: ((b n), l, d), already projected, one frame per row. Returns ((b n), l, d).
    size: (h, w) of the map, h·w = l of k. ratio: r of eq. 10, used by FFAM alone.
    outside: keys and values (b, s, d) that all frames of a clip see besides (see windows.py).
    attend: (q, k, v, heads) -> out, plain attention; PyTorch's own when not given.
    """
    if k.shape[0] % frames or k.shape[1] != size[0] * size[1]:
        raise EI2Error(
            f"keys of shape {tuple(k.shape)} do not hold whole clips of {frames} frames at {size[0]}x{size[1]} tokens."
        )
    attend = attend or scaled_dot_product
    row = ATTENTIONS[kind]
    keys, values = (row.sees(x, frames, size, ratio) for x in (k, v))
    more_keys, more_values = outside or (None, None)
    queries, out = by_clip(q, frames), torch.empty_like(q)
    for some in groups(row, k, frames, size, ratio, torch.is_grad_enabled() and q.requires_grad):
        found = attend(
            by_frame(queries[:, some]), _beside(keys(some), more_keys), _beside(values(some), more_values), heads
        )
        if len(found) == len(q):
            return found
        by_clip(out, frames)[:, some] = by_clip(found, frames * len(found) // len(q))
    return out


def fine_and_coarse(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """concat[z_i, downsample(z_j, r) for j != i], eq. 10: l + (n-1)·m tokens.

    A frame's own coarse tokens are left out. Pooling after the projection equals pooling before it,
    because the projections of attn1 are linear without bias, and projects every token only once.
    """
    clip = by_clip(x, frames)
    if frames == 1:
        return lambda some: x
    coarse, others = by_clip(average_pool(x, size, ratio), frames), other_frames(frames, x.device)

    def seen(some: slice) -> Tensor:
        far = rearrange(coarse[:, others[some]], "b n j m d -> b n (j m) d")
        return by_frame(torch.cat([clip[:, some], far], dim=2))

    return seen


def first_and_previous(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """Tune-A-Video's sparse-causal attention (SCA): frame 0 and frame max(i - 1, 0), never frame i itself."""
    clip = by_clip(x, frames)
    previous = (torch.arange(frames, device=x.device) - 1).clamp(min=0)

    def seen(some: slice) -> Tensor:
        before = clip[:, previous[some]]
        return by_frame(torch.cat([clip[:, :1].expand_as(before), before], dim=2))

    return seen


def first_frame(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """Only frame 0, as Video-P2P's first stage."""
    clip = by_clip(x, frames)
    return lambda some: by_frame(clip[:, :1].expand_as(clip[:, some]))


def middle_frame(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """Only the middle frame, the earlier of two, as FateZero."""
    clip, middle = by_clip(x, frames), (frames - 1) // 2
    return lambda some: by_frame(clip[:, middle : middle + 1].expand_as(clip[:, some]))


def all_frames(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """Every token of every frame: full spatio-temporal attention."""
    clip = by_clip(x, frames)
    return lambda some: rearrange(clip, "b n l d -> b (n l) d").repeat_interleave(clip[:, some].shape[1], dim=0)


def own_frame(x: Tensor, frames: int, size: tuple[int, int], ratio: int) -> Seen:
    """Untouched self-attention, frame by frame."""
    return lambda some: by_frame(by_clip(x, frames)[:, some])


@dataclass(frozen=True)
class FrameAttention:
    """One kind of frame attention."""

    sees: Callable[[Tensor, int, tuple[int, int], int], Seen]  # (x, frames, size, ratio) -> the tokens of some frames
    count: Callable[[int, int, int], int]  # (n, l, m) -> how many tokens each frame sees
    pools: bool = False  # uses r and the map's size, for tokens of other frames and for anchors of a long clip
    gathers: bool = True  # what a frame sees is copied together, and kept for a backward pass
    crosses: bool = True  # frames see each other; if not, the block's own self-attention does the same


ATTENTIONS = {
    "FFAM": FrameAttention(fine_and_coarse, lambda n, own, coarse: own + (n - 1) * coarse, pools=True),
    "SCA": FrameAttention(first_and_previous, lambda n, own, coarse: 2 * own),
    "first-frame": FrameAttention(first_frame, lambda n, own, coarse: own),
    "dense": FrameAttention(all_frames, lambda n, own, coarse: n * own, gathers=False),
    "per-frame": FrameAttention(own_frame, lambda n, own, coarse: own, crosses=False),
    "middle-frame": FrameAttention(middle_frame, lambda n, own, coarse: own),
}


def groups(
    row: FrameAttention, k: Tensor, frames: int, size: tuple[int, int], ratio: int, gradients: bool
) -> list[slice]:
    """Which frames are attended to in one call: all at once, or so few that gathering what they see copies half of k.

    Gradients need every gathered copy anyway, and small maps are over sooner in one call.
    """
    if (gradients and row.gathers) or k.numel() <= SMALL or not row.crosses:
        return [slice(0, frames)]
    tokens, coarse = size[0] * size[1], -(-size[0] // ratio) * -(-size[1] // ratio)
    step = max(1, frames * tokens // (2 * row.count(frames, tokens, coarse)))
    return [slice(i, min(i + step, frames)) for i in range(0, frames, step)]


def _beside(x: Tensor, more: Tensor | None) -> Tensor:
    """Tokens of frames, and those that all frames of a clip see besides."""
    if more is None:
        return x
    return torch.cat([x, more.repeat_interleave(len(x) // len(more), dim=0)], dim=1)


def other_frames(frames: int, device: torch.device) -> Tensor:
    """Row i lists every frame but i, in order: (n, n-1)."""
    j = torch.arange(frames - 1, device=device)
    i = torch.arange(frames, device=device)[:, None]
    return j + (j >= i)
