"""The noise schedule as numbers: sigma tables and the published DDIM grid.

Units. The paper's latent z keeps unit variance (variance preserving, VP); ComfyUI's x = z·sqrt(1 + sigma²)
grows with the noise (variance exploding, VE), sigma = sqrt((1 - abar) / abar). In VE units a DDIM step
with eta 0 is an Euler step in sigma, so both directions are written there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EI2Error


@dataclass(frozen=True)
class Schedule:
    """`steps` DDIM steps. sigmas[0] belongs to abar_0, the clean end; sigmas[k] to timesteps[k-1]."""

    timesteps: tuple[int, ...]  # rising: 1, 21, ..., 981
    sigmas: Tensor  # (steps + 1,), fp32, rising

    @property
    def steps(self) -> int:
        return len(self.timesteps)

    @property
    def sigma_end(self) -> float:
        """Where inversion ends and sampling starts: 13.12 for 50 steps of Stable Diffusion."""
        return float(self.sigmas[-1])

    @property
    def descending(self) -> Tensor:
        """For sampling, down to abar_0 and not to zero; empty for no steps, as ComfyUI has it."""
        return self.sigmas.flip(0) if self.steps else self.sigmas[:0]

    def part(self, strength: float) -> "Schedule":
        """Its clean end: the steps that an edit of this strength, 0 to 1, takes. Raises EI2Error outside them."""
        if not 0 <= strength <= 1:
            raise EI2Error(f"strength is {strength}: it must be 0 (the clip as it is) to 1 (all steps).")
        steps = round(strength * self.steps)
        return Schedule(self.timesteps[:steps], self.sigmas[: steps + 1])


def ddim_timesteps(steps: int, train_steps: int = 1000) -> tuple[int, ...]:
    """The published "leading" spacing with offset 1: 1, 21, ..., 981 for 50 steps."""
    if not 1 <= steps <= train_steps // 2:
        raise EI2Error(f"steps is {steps}: DDIM needs 1 to {train_steps // 2} (the paper uses 50).")
    stride = train_steps // steps
    return tuple(range(1, stride * steps + 1, stride))


def ddim_schedule(sigma_table: Tensor, steps: int) -> Schedule:
    """The grid over a model's own table of sigmas, (train_steps,) rising."""
    timesteps = ddim_timesteps(steps, len(sigma_table))
    sigmas = sigma_table.detach().float().cpu()[[0, *timesteps]]
    return Schedule(timesteps, sigmas)


def vp_scale(sigma: Tensor | float) -> Tensor:
    """sqrt(1 + sigma²): VE units = VP units times this."""
    return torch.as_tensor(sigma).square().add(1).sqrt()


def noise_direction(x: Tensor, denoised: Tensor, sigma: Tensor | float) -> Tensor:
    """The noise a model sees in x, whatever it predicts: eps = (x - x0) / sigma, VE units."""
    return (x - denoised) / sigma
