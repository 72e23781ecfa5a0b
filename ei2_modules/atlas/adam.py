"""Adam (Kingma and Ba 2015) for parameters of which a step sees only some rows.

A clip's parameters are one row a frame, and a step sees a few frames: only their rows are differentiated, held twice
more and moved, so that a step costs the same in a clip of any length.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

BETAS = 0.9, 0.99
EPSILON = 1e-8


@dataclass
class Rows:
    """A parameter (n, ...), its learning rate, and what Adam remembers of each row."""

    value: Tensor
    rate: float
    first: Tensor = field(init=False)
    second: Tensor = field(init=False)
    seen: Tensor = field(init=False)  # (n, 1, ...) steps

    def __post_init__(self):
        self.first, self.second = torch.zeros_like(self.value), torch.zeros_like(self.value)
        self.seen = self.value.new_zeros(len(self.value), *[1] * (self.value.ndim - 1))

    def leaf(self, rows: slice) -> Tensor:
        """These rows, to be differentiated by."""
        return self.value[rows].detach().clone().requires_grad_()

    def step(self, rows: slice, grad: Tensor, scale: float) -> None:
        """Move these rows; scale: of the learning rate."""
        self.seen[rows] += 1
        first, second, seen = self.first[rows], self.second[rows], self.seen[rows]
        first.lerp_(grad, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
        size = (second / (1 - BETAS[1] ** seen)).sqrt_().add_(EPSILON)
        self.value[rows] -= scale * self.rate * (first / (1 - BETAS[0] ** seen)) / size
