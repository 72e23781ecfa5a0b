"""Stops a sampling where the model first gives something that is no number, instead of running on to black frames."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..errors import NotFiniteError


def watched(model: Callable, asked: Tensor) -> Callable:
    """model(x, sigma, **extra_args) -> denoised x0, which raises NotFiniteError for a frame that is not finite.

    asked: the sigma that the model is asked for at each step.
    """

    def denoise(x: Tensor, sigma: Tensor, **extra_args) -> Tensor:
        denoised = model(x, sigma, **extra_args)
        found = first_not_finite(denoised)
        if found is not None:
            step = int((asked.to(sigma) - sigma[0]).abs().argmin())
            raise NotFiniteError(f"step {step + 1} of {len(asked)} (sigma {float(sigma[0]):.2f})", found, len(x))
        return denoised

    return denoise


def first_not_finite(frames: Tensor) -> int | None:
    """The number, from 1 on, of the first frame that holds a value that is not finite. frames: (n, ...)."""
    bad = ~torch.isfinite(frames).flatten(1).all(dim=1)
    return int(bad.nonzero()[0]) + 1 if bad.any() else None
