"""A fingerprint of a model's weights that survives rounding: the same base in fp16, bf16 or fp32 still matches.

Each weight tensor is projected on one fixed wave and divided by its own length, which gives a number of
the size of a standard normal. Rounding to 16 bits moves it by about 0.001; another set of weights gives another
number. Coarser rounding, by the share r of a tensor's length, moves it by r times a standard normal.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FINGERPRINT_TOLERANCE = 0.01
ROUNDING_DEVIATIONS = 5  # of a standard normal: beyond what the furthest of some hundred numbers gets
_FREQUENCY = 0.7548776662  # any irrational step will do; this one spreads well


@dataclass(frozen=True)
class Fingerprint:
    """Of one model. numbers: of the key projections, then of the query projections, in the order of the blocks."""

    numbers: list[float]
    rounding: float = 0.0  # what quantising took from the weights, as a share of their length
    stored: str = ""  # as what, when it is coarser than 16 bits

    def allowed(self, other: "Fingerprint | None" = None) -> float:
        """The distance that rounding can make between two models of the same weights."""
        rounding = (self.rounding**2 + (other.rounding**2 if other else 0)) ** 0.5
        return FINGERPRINT_TOLERANCE + ROUNDING_DEVIATIONS * rounding


def fingerprint(weights: list[Tensor]) -> list[float]:
    """One number per tensor, rounded to 4 digits."""
    return [round(_project(w), 4) for w in weights]


def distance(a: list[float], b: list[float]) -> float:
    """Largest difference; infinite for fingerprints of different length.

    Of files of formats 1 and 2 it is half as long, without the queries: what both have is compared.
    """
    shorter, longer = sorted((len(a), len(b)))
    if longer not in (shorter, 2 * shorter):
        return float("inf")
    return max((abs(x - y) for x, y in zip(a, b, strict=False)), default=0.0)


def spread(a: list[float], b: list[float]) -> float:
    """Root of the mean squared difference of as many numbers: less a matter of chance than the largest one."""
    return (sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / len(a)) ** 0.5


def _project(weight: Tensor) -> float:
    """On cos(f n) of the n-th number. By rows and columns, cos(a + b) = cos a cos b - sin a sin b, which is quicker."""
    w = weight.detach().float().cpu()
    w = w.reshape(len(w), -1)
    rows, columns = (torch.arange(n, dtype=torch.float64) * _FREQUENCY for n in w.shape)
    rows = rows * w.shape[1]
    dot = rows.cos().float() @ w @ columns.cos().float() - rows.sin().float() @ w @ columns.sin().float()
    return float(dot / w.norm().clamp(min=1e-12) * 2**0.5)
