"""FFAM as one call of PyTorch's FlexAttention: a mask says what a frame sees, so that nothing is gathered.

Keys are the tokens of all frames, and behind them the coarse tokens of all frames.
"""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from ei2_modules.attention.core import average_pool

BLOCK = 128  # queries and keys on each side of a block: FlexAttention's own


def block_mask(frames: int, size: tuple[int, int], ratio: int, device: torch.device) -> BlockMask:
    """Of eq. 10: a frame's own tokens, and the coarse tokens of every other frame.

    What `create_block_mask` gives, a row of blocks at a time: that one holds the whole mask (10 GB for 8 frames of
    64x64 tokens), or has to be compiled, which may take minutes (PyTorch's issue 182060).
    """
    tokens, coarse = size[0] * size[1], -(-size[0] // ratio) * -(-size[1] // ratio)
    fine, length = frames * tokens, frames * (tokens + coarse)

    def sees(batch, head, query, key):
        own = query // tokens
        return ((key < fine) & (key // tokens == own)) | ((key >= fine) & ((key - fine) // coarse != own))

    keys = torch.arange(length, device=device)
    rows = torch.arange(fine, device=device)[:, None].split(BLOCK)
    seen = torch.stack([_in_blocks(sees(None, None, queries, keys)) for queries in rows])[None, None]
    whole = seen == BLOCK**2
    part = (seen > 0) & ~whole
    listed = (*_listed(part), *_listed(whole))
    return BlockMask.from_kv_blocks(*listed, BLOCK_SIZE=BLOCK, mask_mod=sees, seq_lengths=(fine, length))


def flex_ffam(
    q: Tensor, k: Tensor, v: Tensor, mask: BlockMask, heads: int, size: tuple[int, int], ratio: int
) -> Tensor:
    """As `frame_attention` of one clip: (n, l, d), already projected -> (n, l, d)."""
    keys, values = (_beside_coarse(x, heads, size, ratio) for x in (k, v))
    out = _attend(q.device.type)(_by_head(q, heads), keys, values, block_mask=mask)
    return rearrange(out, "1 h (n l) d -> n l (h d)", n=len(q))


@functools.cache
def _attend(device: str) -> Callable:
    """On a GPU Triton makes kernels of it; elsewhere it holds whole maps, which is for small sizes only."""
    return torch.compile(flex_attention) if device == "cuda" else flex_attention


def _in_blocks(seen: Tensor) -> Tensor:
    """(queries, keys) of one row of blocks -> how many pairs of each block see each other."""
    padded = F.pad(seen.sum(0), (0, -seen.shape[1] % BLOCK))
    return padded.view(-1, BLOCK).sum(1)


def _listed(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """(number of blocks in each row, which they are and behind them all others), as FlexAttention wants them."""
    order = blocks.int().argsort(dim=-1, descending=True, stable=True)
    return blocks.sum(-1).int(), order.int()


def _beside_coarse(x: Tensor, heads: int, size: tuple[int, int], ratio: int) -> Tensor:
    return torch.cat([_by_head(x, heads), _by_head(average_pool(x, size, ratio), heads)], dim=2)


def _by_head(x: Tensor, heads: int) -> Tensor:
    return rearrange(x, "n l (h d) -> 1 h (n l) d", h=heads)
