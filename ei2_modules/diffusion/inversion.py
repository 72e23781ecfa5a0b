"""DDIM inversion of a clip (paper section 5, by Tune-A-Video's published rule), in ComfyUI's VE units.

Going from sigma_s up to sigma_t, the published rule asks the model for the noise at the *target* timestep
of the *source* latent. Sampling back asks it of the target latent, so the two are not quite inverses.
Iterating the step to its fixed point (ours, optional) closes that gap.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from .schedule import noise_direction, vp_scale

CONVERGED = 1e-3  # relative change of the latent in the last iteration; above it the step has not settled


@dataclass
class Convergence:
    """How the fixed-point iterations of each step ended; empty for the plain rule."""

    iterations: int
    residuals: list[float] = field(default_factory=list)  # one a step, relative
    previous: list[float] = field(default_factory=list)  # the residual one iteration earlier

    def failed_steps(self) -> list[int]:
        """Steps whose last iteration still moved the latent by more than 0.1 %, counted from 1."""
        return [i + 1 for i, r in enumerate(self.residuals) if not r <= CONVERGED]

    def describe(self) -> str:
        """One line for the report."""
        if not self.iterations:
            return "plain rule: no fixed-point iterations"
        worst = max(self.residuals)
        failed = self.failed_steps()
        if not failed:
            return f"{self.iterations} fixed-point iterations converged at every step (worst residual {worst:.1e})"
        growing = sum(r > p for r, p in zip(self.residuals, self.previous, strict=True))
        return (
            f"WARNING: {self.iterations} fixed-point iterations did not converge at {len(failed)} of "
            f"{len(self.residuals)} steps (first at step {failed[0]}, worst residual {worst:.1e}, still growing at "
            f"{growing}). Use more inversion steps, more iterations, or 0 for the plain rule."
        )


def inversion_step(model, x, sigma, sigma_next, iterations, convergence, extra_args) -> Tensor:
    """From sigma up to sigma_next: x + (sigma_next - sigma)·eps(·, sigma_next)."""
    per_frame = x.new_ones([x.shape[0]])

    def step(at: Tensor) -> tuple[Tensor, Tensor]:
        denoised = model(at, sigma_next * per_frame, **extra_args)
        return x + (sigma_next - sigma) * noise_direction(at, denoised, sigma_next), denoised

    # The published rule keeps the VP latent of the source; in VE units that is a change of scale.
    x_next, denoised = step(x * (vp_scale(sigma_next) / vp_scale(sigma)).to(x))
    residual = before = float("inf")
    for _ in range(iterations):
        refined, denoised = step(x_next)
        before, residual = residual, _relative_change(refined, x_next)
        x_next = refined
    if iterations:
        convergence.residuals.append(residual)
        convergence.previous.append(before)
    return x_next, denoised


@torch.no_grad()
def invert_ddim(
    model, x, sigmas, extra_args=None, callback=None, disable=None, iterations=0, convergence=None, trajectory=None
) -> Tensor:
    """A clean VP latent x at sigmas[0] (abar_0) -> noise at sigmas[-1], VE units; sigmas rising.

    model(x, sigma, **extra_args) -> denoised x0. k-diffusion's signature. The model is asked 1 + iterations
    times a step and never at sigma 0. `convergence` collects how the iterations ended; to `trajectory` the latents at
    every sigma are appended, in main memory.
    """
    convergence = Convergence(iterations) if convergence is None else convergence
    x = x * vp_scale(sigmas[0]).to(x)
    if trajectory is not None:
        trajectory.append(x.cpu())
    for i, (sigma, sigma_next) in enumerate(pairwise(sigmas)):
        x, denoised = inversion_step(model, x, sigma, sigma_next, iterations, convergence, extra_args or {})
        if trajectory is not None:
            trajectory.append(x.cpu())
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma_next, "denoised": denoised})
    return x


def _relative_change(new: Tensor, old: Tensor) -> float:
    return float((new - old).norm() / new.norm())
