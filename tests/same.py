"""Bit for bit."""

import torch
from torch import Tensor


def same(a, b) -> bool:
    """Two tensors, two dictionaries of tensors, or what two tunings gave."""
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    a, b = (of if isinstance(of, dict) else tensors(of) for of in (a, b))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def tensors(weights) -> dict[str, Tensor]:
    """All that EI2_WEIGHTS hold, by name."""
    return weights.tensors.queries | weights.tensors.temporal
