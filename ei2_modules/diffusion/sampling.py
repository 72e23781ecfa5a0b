"""DDIM sampling (Song et al., eq. 12) back from inverted noise, in ComfyUI's VE units (see schedule.py).

The function has k-diffusion's signature, so the host runs it as any other sampler.
"""

from itertools import pairwise

import torch
from torch import Tensor

from .schedule import noise_direction, vp_scale


def ddim_step(
    x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor, eta: float = 0.0, noise: Tensor | None = None
) -> Tensor:
    """From sigma down to sigma_next. eta 0: the Euler step; eta 1: as much fresh noise as DDPM adds."""
    up = eta * (sigma_next.square() * (sigma.square() - sigma_next.square()) / sigma.square()).sqrt()
    down = (sigma_next.square() - up.square()).sqrt()
    x = denoised + noise_direction(x, denoised, sigma) * down
    return x if noise is None else x + noise * up


@torch.no_grad()
def sample_ddim(
    model, x, sigmas, extra_args=None, callback=None, disable=None, eta=0.0, generator=None, keep=None, leftover=False
) -> Tensor:
    """The whole loop: x at sigmas[0] -> a clean latent.

    model(x, sigma, **extra_args) -> denoised x0, sigma one value a frame. The last step goes to abar_0 as
    published; what is returned is the VP latent there, which is what a decoder takes.
    generator: CPU generator of the fresh noise, needed only for eta > 0.
    keep: (x, sigma) -> x after every step (see masked_edit.py).
    leftover: the sigmas end above abar_0: x is returned in VE units, for a sampler that goes on from there.
    """
    extra_args = extra_args or {}
    per_frame = x.new_ones([x.shape[0]])
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * per_frame, **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "denoised": denoised})
        x = ddim_step(x, denoised, sigma, sigma_next, eta, _fresh_noise(x, generator) if eta > 0 else None)
        if keep is not None:
            x = keep(x, sigma_next)
    return x if leftover else x / vp_scale(sigmas[-1]).to(x)


def _fresh_noise(x: Tensor, generator: torch.Generator | None) -> Tensor:
    return torch.randn(x.shape, generator=generator, dtype=torch.float32).to(x)
