"""What a sampling under attention control begins with, checked before its first step: anything may be wired."""

from itertools import pairwise

import torch
from torch import Tensor

from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.errors import EI2Error
from ..conditioning import LIMITS

SAME_SIGMA = 1e-3  # relative
ROUNDED = 1e-3  # relative: no more than fp16 takes from a latent
USE = "Use the sigmas of EI² DDIM Sampler"


def place_of(sigma: float, sigmas: Tensor) -> int:
    """In a schedule's sigmas, which rise. Raises EI2Error for a sigma between them."""
    place = int((sigmas.cpu() - sigma).abs().argmin())
    if not abs(float(sigmas[place]) - sigma) <= SAME_SIGMA * float(sigmas[place]):
        raise EI2Error(
            f"Attention control has no latents of the source at sigma {sigma:.3f}: the sampler takes other steps than "
            f"the inversion. {USE} and a sampler of one call a step."
        )
    return place


def check_start(x: Tensor, added: Tensor | None, sigmas: Tensor, noise: Tensor, schedule: Schedule) -> None:
    """x: the latents in the model's scale, to which `added` is added; noise: the inverted latent.

    Raises EI2Error for latents that are not of this inversion, and for other steps than its own.
    """
    _check_steps(sigmas.tolist(), schedule)
    if x.shape != noise.shape:
        raise EI2Error(
            f"The sampler begins with latents of shape {tuple(x.shape)}, and EI² Edit Guider has the inversion of "
            f"{tuple(noise.shape)} (frames, channels, height, width). Wire the same latent into both."
        )
    if added is not None and added.any():
        raise EI2Error(
            "Noise is added to the inverted latent, which is noise already: the clip would be lost. Wire Disable Noise "
            "into noise of SamplerCustomAdvanced."
        )
    _check_latents(x, noise.to(x), place_of(float(sigmas[0]), schedule.sigmas), schedule)


def check_whole(conditioning: list, name: str, refused: tuple[str, ...]) -> None:
    """Raises EI2Error for conditioning of a part of the picture or of the steps. refused: names of `LIMITS`."""
    for _, options in conditioning:
        found = [what for what in refused if LIMITS[what](options)]
        found += ["a mask's bounds"] if options.get("set_area_to_bounds") else []
        if found:
            raise EI2Error(
                f"The {name} conditioning carries {' and '.join(found)}: attention control needs the whole picture at "
                "every step, of the edit and of its source. Take it off; to edit a part, give Attention Control a mask."
            )


def _check_steps(sigmas: list[float], schedule: Schedule) -> None:
    """One by one down the schedule, from anywhere on; the last to its clean end, or to 0 as the host has it."""
    below = schedule.sigmas.tolist()
    for sigma, then in pairwise(sigmas):
        place = place_of(sigma, schedule.sigmas)
        expected = below[place - 1] if place else 0.0
        if not (abs(then - expected) <= SAME_SIGMA * expected or (then == 0 and place <= 1)):
            raise EI2Error(
                f"The sigmas go from {sigma:.3f} to {then:.3f}, and the {schedule.steps} steps of the inversion to "
                f"{expected:.3f}: attention control goes them one by one. {USE}."
            )


def _check_latents(x: Tensor, noise: Tensor, place: int, schedule: Schedule) -> None:
    off = float((x - noise).norm() / noise.norm())
    if place == schedule.steps and not off <= ROUNDED:
        raise EI2Error(
            f"The sampler begins with other latents than EI² Edit Guider has: they differ by {off:.0%}. Wire the same "
            "latent of DDIM Invert Video into both."
        )
    if place < schedule.steps and torch.equal(x, noise):
        raise EI2Error(
            f"The sampler begins at sigma {float(schedule.sigmas[place]):.2f} with the noise of sigma "
            f"{schedule.sigma_end:.2f}. Wire the LATENT of EI² DDIM Sampler into SamplerCustomAdvanced (strength below "
            "1), or that of the steps before (Split Sigmas)."
        )
