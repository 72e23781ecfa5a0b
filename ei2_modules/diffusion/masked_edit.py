"""Editing inside a mask only (ours): outside it the clip keeps the latents that its inversion went through."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class SourceOutsideMask:
    """Puts the source back after a step of sampling.

    mask: (n or 1, c or 1, h, w), 1 where the clip may change, 0 where it stays, between them a blend.
    trajectory: the latents (n, c, h, w) of the inversion at every one of `sigmas`, which rise.
    """

    mask: Tensor
    trajectory: Sequence[Tensor]
    sigmas: Tensor

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x: the edited latents at this sigma, a scalar; of the source the nearest there is."""
        source = self.trajectory[int((self.sigmas.to(sigma) - sigma).abs().argmin())]
        return x * self.mask + source.to(x) * (1 - self.mask)
