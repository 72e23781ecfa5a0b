"""Floating-point operations, counted as PyTorch does them; its counter does not know the fused attention of a CPU."""

import math

import torch
from torch.utils.flop_counter import FlopCounterMode

PRODUCTS, PRODUCTS_BACKWARD = 2, 5  # of queries with keys, or of as many numbers; backward makes the maps again


def counter() -> FlopCounterMode:
    """To be entered; `get_total_flops` may be asked in between."""
    return FlopCounterMode(display=False, custom_mapping=_ON_CPU)


def attention(queries: int, keys: int, width: int, backward: bool = False) -> int:
    """Of so many queries that see so many keys each, all heads together; a multiplication and an addition are two."""
    return 2 * (PRODUCTS + backward * PRODUCTS_BACKWARD) * queries * keys * width


def _forward(q, k, *args, out_shape=None, **kwargs) -> int:
    return 2 * PRODUCTS * math.prod(q) * k[-2]


def _backward(grad, q, k, *args, out_shape=None, **kwargs) -> int:
    return 2 * PRODUCTS_BACKWARD * math.prod(q) * k[-2]


_ON_CPU = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward,
}
