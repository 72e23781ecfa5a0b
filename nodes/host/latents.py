"""Checks a LATENT, and carries the schedule that an inverted one was made with."""

import logging
from dataclasses import dataclass, field, replace

import torch

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.fingerprint import FINGERPRINT_TOLERANCE, distance
from ...ei2_modules.inflate import UNetSpec
from ...ei2_modules.masked_edit import SourceOutsideMask
from ...ei2_modules.schedule import Schedule, ddim_schedule

MASK = "noise_mask"  # the host's key in the LATENT dict
SAME_SIGMA = 1e-3  # relative: the same table, stored in another precision
KEY = "ei2_inversion"  # in the LATENT dict, beside "samples"


@dataclass(frozen=True)
class Inversion:
    """How an inverted latent was made."""

    steps: int
    sigma_end: float
    prediction: str
    fingerprint: list[float]
    trajectory: list[torch.Tensor] = field(compare=False, repr=False)  # of the clip, at every sigma of its schedule
    mask: torch.Tensor | None = field(default=None, compare=False, repr=False)  # that the clip came with


def clip_latents(latent: dict, spec: UNetSpec) -> torch.Tensor:
    """The samples of a clip, (n, c, h, w). Raises EI2Error for anything a UNet of this kind cannot take."""
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        shape = "nested" if getattr(samples, "is_nested", False) else tuple(samples.shape)
        raise EI2Error(
            f"The latents have shape {shape}, but frames of an image model have 4 dimensions (frames, channels, "
            "height, width). Encode the clip with the VAE of the same checkpoint."
        )
    frames, channels, height, width = samples.shape
    if frames == 0:
        raise EI2Error("The latents hold 0 frames. Choose at least one frame of the clip.")
    if channels != spec.channels:
        raise EI2Error(
            f"The latents have {channels} channels, but this {spec.family} model takes {spec.channels}. "
            "Encode the clip with the VAE of the same checkpoint."
        )
    if height * width == 0 or not torch.isfinite(samples).all():
        raise EI2Error(
            f"The latents ({frames} frames of {width}x{height}) are empty or hold values that are not finite. "
            "Encode the clip again, with VAE precision fp32 (--fp32-vae) if frames come out black."
        )
    return samples


def with_inversion(latent: dict, samples: torch.Tensor, inversion: Inversion) -> dict:
    """A new LATENT dict of inverted noise. A noise mask moves into the record: stock samplers would misread it."""
    inversion = replace(inversion, mask=latent.get(MASK))
    return {**{k: v for k, v in latent.items() if k != MASK}, "samples": samples, KEY: inversion}


def kept_outside_mask(latent: dict, schedule: Schedule) -> SourceOutsideMask | None:
    """What the noise mask of an inverted latent keeps of its source, set before the inversion or after it.

    Raises EI2Error for a mask that does not fit the frames, or without a record of the source.
    """
    inversion, frames = latent.get(KEY), len(latent["samples"])
    mask = latent.get(MASK, inversion.mask if inversion else None)
    if mask is None:
        return None
    if inversion is None:
        raise EI2Error(
            "The latent carries a noise mask, but its record of the clip is lost (Save Latent drops it), so nothing "
            "can be kept outside the mask. Wire the latent of DDIM Invert Video, or take the mask off."
        )
    count = mask.reshape(-1, *mask.shape[-2:]).shape[0]
    if count not in (1, frames):
        raise EI2Error(
            f"The noise mask has {count} frames and the clip {frames}. Give one mask for all frames, or one a frame."
        )
    before, now = inversion.trajectory[0].shape, latent["samples"].shape
    if before != now:
        raise EI2Error(
            f"The latent was cut after its inversion, from {tuple(before)} to {tuple(now)}, so nothing can be kept "
            "outside the noise mask. Cut the clip before DDIM Invert Video."
        )
    # Other packs make masks of bool.
    return SourceOutsideMask(mask.float(), inversion.trajectory, schedule.sigmas)


def without_inversion(latent: dict, samples: torch.Tensor) -> dict:
    """A new LATENT dict of an ordinary clip again."""
    return {**{k: v for k, v in latent.items() if k != KEY}, "samples": samples}


def sampling_schedule(
    latent: dict, state, sigma_table: torch.Tensor, steps: int, scale: float, allow_mismatch: bool = False
) -> Schedule:
    """The schedule that leads back from an inverted latent, for the inflated model that `state` tells of.

    steps 0: the inversion's own. Without a record (the latent went through Save Latent, say) `steps` must be
    given, and the spread of the noise must fit it. scale: of the latent format, to undo for that check.
    allow_mismatch: of a latent inverted with another model or on another schedule only warn.
    """
    inversion = latent.get(KEY)
    if inversion is None:
        return _schedule_by_steps(latent["samples"], sigma_table, steps, scale)
    mismatch = _other_model(inversion, state) or _other_sigmas(inversion, sigma_table)
    if mismatch and not allow_mismatch:
        raise EI2Error(
            f"This latent was inverted with {mismatch}. Wire the same model into DDIM Invert Video and this node, or "
            "set allow_mismatch to try it all the same."
        )
    if mismatch:
        logging.warning("EI²: the latent was inverted with %s; the clip will not come back as it was.", mismatch)
    if steps in (0, inversion.steps):
        return ddim_schedule(sigma_table, inversion.steps)
    other = ddim_schedule(sigma_table, steps)
    raise EI2Error(
        f"This latent was inverted in {inversion.steps} steps and ends at sigma {inversion.sigma_end:.2f}; {steps} "
        f"sampling steps start at sigma {other.sigma_end:.2f} on another grid. Set steps to 0 (the inversion's), or "
        f"invert again with {steps} steps."
    )


def _other_model(inversion: Inversion, state) -> str | None:
    """What another model an inversion was made with, or None."""
    if inversion.prediction != state.spec.prediction:
        return f"{inversion.prediction}-prediction, but this model samples with {state.spec.prediction}-prediction"
    far = distance(inversion.fingerprint, state.fingerprint)
    if not far <= FINGERPRINT_TOLERANCE:
        return f"another checkpoint (fingerprints differ by {far:.3f}, allowed {FINGERPRINT_TOLERANCE})"
    return None


def _other_sigmas(inversion: Inversion, sigma_table: torch.Tensor) -> str | None:
    """What another schedule an inversion was made on, or None."""
    here = ddim_schedule(sigma_table, inversion.steps).sigma_end
    if abs(here - inversion.sigma_end) <= SAME_SIGMA * inversion.sigma_end:
        return None
    return f"another noise schedule: it ends at sigma {inversion.sigma_end:.2f}, this model's at {here:.2f}"


def _schedule_by_steps(samples, sigma_table, steps: int, scale: float) -> Schedule:
    if steps == 0:
        raise EI2Error(
            "This latent does not come from DDIM Invert Video, or lost its record on the way (Save Latent drops it). "
            "Wire the inverted latent here, or set steps to the number it was inverted with."
        )
    schedule = ddim_schedule(sigma_table, steps)
    spread = float((samples * scale).std())
    if spread < schedule.sigma_end**0.5:  # a clean latent spreads about 1, inverted noise about sigma_end
        raise EI2Error(
            f"This latent has a spread of {spread:.2f}, but noise inverted in {steps} steps has about "
            f"{schedule.sigma_end:.2f}. It is not inverted noise: put DDIM Invert Video before this node."
        )
    return schedule
