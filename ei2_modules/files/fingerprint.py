"""A fingerprint of a model's weights that survives rounding: the same base in fp16, bf16 or fp32 still matches.

Each weight tensor is projected on one fixed wave and divided by its own length, which gives a number of
the size of a standard normal. Rounding moves it by about 0.001; another set of weights gives another number.
"""

import torch
from torch import Tensor

FINGERPRINT_TOLERANCE = 0.01
_FREQUENCY = 0.7548776662  # any irrational step will do; this one spreads well


def fingerprint(weights: list[Tensor]) -> list[float]:
    """One number per tensor, rounded to 4 digits."""
    return [round(_project(w), 4) for w in weights]


def distance(a: list[float], b: list[float]) -> float:
    """Largest difference; infinite for fingerprints of different length."""
    if len(a) != len(b):
        return float("inf")
    return max((abs(x - y) for x, y in zip(a, b, strict=True)), default=0.0)


def _project(weight: Tensor) -> float:
    w = weight.detach().flatten().float().cpu()
    wave = torch.cos(torch.arange(w.numel(), dtype=torch.float64) * _FREQUENCY).float()
    return float(torch.dot(w, wave) / w.norm().clamp(min=1e-12) * 2**0.5)
