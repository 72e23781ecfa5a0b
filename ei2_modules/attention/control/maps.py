"""Cross-attention maps, and those of an edit that take their columns from the source's (Prompt-to-Prompt, section 3).

Letters as in ../core.py; a source of s tokens and a target of t, the same queries' places l in both.
"""

from collections.abc import Callable

import torch
from einops import rearrange
from torch import Tensor

from ..core import Attend, scaled_dot_product
from .alignment import Alignment

AT_ONCE = 2**24  # numbers of maps held at a time: 64 MiB


def softmax_maps(q: Tensor, k: Tensor, heads: int) -> Tensor:
    """softmax(q kᵀ / sqrt(d_head)) in fp32: q (b, l, d), k (b, s, d) -> (b, heads, l, s)."""
    q, k = (rearrange(x.float(), "b l (h d) -> b h l d", h=heads) for x in (q, k))
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


def controlled_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_src: Tensor,
    k_src: Tensor,
    heads: int,
    alignment: Alignment,
    weights: Tensor | None = None,
    attend: Attend = scaled_dot_product,
) -> Tensor:
    """E v, exactly, with no map ever held: E has the source's columns where shared, then each word's weight.

    q: (b, l, d), k, v: (b, t, d) of the target; q_src: (b, l, d), k_src: (b, s, d) of the source. Returns (b, l, d).
    With E = A diag(own) + A_src M, E v = A (own·v) + A_src (M v): plain attention of the target and plain attention of
    the source, each with values of its own. weights: (t,), see `words.word_weights`; as published E is not normalised
    again. attend: as in frame attention.
    """
    own, moved = 1 - alignment.shared, alignment.mapper  # (t,), (s, t)
    if weights is not None:
        own, moved = own * weights.cpu(), moved * weights.cpu()
    out = attend(q_src, k_src, moved.to(v) @ v, heads)
    if not own.any():  # every token takes the source's map, as in a swap of words
        return out
    return out + attend(q, k, own.to(v)[:, None] * v, heads)


def word_maps(q: Tensor, k: Tensor, heads: int, tokens: list[int]) -> Tensor:
    """How much each place looks at some tokens, mean over heads and tokens: q (b, l, d), k (b, s, d) -> (b, l) fp32."""
    return _seen(q, k, heads, lambda maps: maps[..., tokens].mean(-1))


def edited_word_maps(
    q: Tensor,
    k: Tensor,
    q_src: Tensor,
    k_src: Tensor,
    heads: int,
    tokens: list[int],
    alignment: Alignment,
    weights: Tensor | None = None,
) -> Tensor:
    """`word_maps` of the maps that `controlled_attention` attends by, with no more of them held at a time."""
    of_token = torch.zeros(len(alignment.shared))
    of_token[tokens] = 1 / len(tokens)
    if weights is not None:
        of_token = of_token * weights.cpu()
    own, moved = of_token * (1 - alignment.shared), alignment.mapper @ of_token  # (t,), (s,)
    return _seen(q_src, k_src, heads, lambda maps: maps @ moved.to(maps)) + _seen(
        q, k, heads, lambda maps: maps @ own.to(maps)
    )


def _seen(q: Tensor, k: Tensor, heads: int, of_maps: Callable[[Tensor], Tensor]) -> Tensor:
    """What is made of every head's maps (h, l, s) -> (h, l), mean over heads: (b, l)."""
    q, k = (rearrange(x, "b l (h d) -> (b h) l d", h=heads) for x in (q, k))
    step = max(1, AT_ONCE // (q.shape[1] * k.shape[1]))
    rows = (of_maps(softmax_maps(a, b, 1)[:, 0]) for a, b in zip(q.split(step), k.split(step), strict=True))
    return rearrange(torch.cat(list(rows)), "(b h) l -> b h l", h=heads).mean(1)
