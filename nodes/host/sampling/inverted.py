"""What it takes to sample from an inverted LATENT."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher

from ....ei2_modules.diffusion.masked_edit import SourceOutsideMask
from ....ei2_modules.diffusion.schedule import Schedule, ddim_schedule, vp_scale
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import distance
from ..images import shares_of
from ..inflating.inflate import Inflated
from ..inflating.unet import sigma_table
from ..latents import clip_latents
from ..progress import warn
from .changes import numbers, provenance
from .record import MASK, RECORD, Inversion

SAME_SIGMA = 1e-3  # relative: the same table, stored in another precision


@dataclass(frozen=True)
class Inverted:
    """An inverted latent that fits the model it is to be sampled with."""

    latent: dict
    samples: torch.Tensor  # (n, c, h, w)
    schedule: Schedule  # that leads back
    kept: SourceOutsideMask | None  # what its noise mask keeps of the source
    trajectory: Sequence[torch.Tensor] | None  # of its frames, where all of them were inverted together

    def sampled(self, samples: torch.Tensor) -> dict:
        """A new LATENT dict of an ordinary clip again."""
        return {**{k: v for k, v in self.latent.items() if k != RECORD}, "samples": samples}


def read_inverted(model: ModelPatcher, inflated: Inflated, latent: dict, steps: int, allow_mismatch: bool) -> Inverted:
    """Raises EI2Error for a latent that does not lead back to a clip with this model in so many steps (0: its own).

    What was done to the latent since its inversion, and can work, is said.
    """
    samples = clip_latents(latent, inflated.spec)
    scaled, inversion = model.model.process_latent_in(samples), latent.get(RECORD)
    schedule = _schedule(latent, inflated, sigma_table(model), steps, scaled, allow_mismatch)
    if inversion is None:
        _refuse_mask(latent)
        return Inverted(latent, samples, schedule, None, None)
    found = provenance(samples, scaled.cpu(), inversion)
    if found.told:
        warn(" ".join(found.told))
    kept = _kept_outside_mask(latent, inversion, found.frames, schedule)
    if kept is not None and "denoise_mask_function" in model.model_options:
        logging.warning(
            "EI²: Differential Diffusion has no effect here: outside the noise mask EI² keeps the clip's own latents, "
            "and between 0 and 1 it blends. Take the node out, or sample with another sampler."
        )
    trajectory = None if None in found.frames else inversion.trajectory.of(found.frames)
    return Inverted(latent, samples, schedule, kept, trajectory)


def partway(model: ModelPatcher, start: Inverted, strength: float) -> tuple[torch.Tensor, Schedule]:
    """Where an edit of this strength begins: latents of the inversion, in the LATENT scale, and the steps left.

    Raises EI2Error where they are not known, and for a strength outside 0..1.
    """
    schedule = start.schedule.part(strength)
    if schedule.steps == start.schedule.steps:
        return start.samples, schedule
    if start.trajectory is None:
        raise EI2Error(
            f"strength is {strength:g}, and this latent does not have the way that its clip was inverted along: Save "
            "Latent drops it, and frames that were changed or joined later have none. Wire the latent of DDIM Invert "
            "Video, or set strength to 1."
        )
    x = start.trajectory[schedule.steps]
    if schedule.steps == 0:
        warn(f"strength {strength:g} of {start.schedule.steps} steps leaves none: the clip comes back as it is.")
        x = x / vp_scale(schedule.sigmas[0])  # as after a last step
    return model.model.process_latent_out(x), schedule


def _refuse_mask(latent: dict) -> None:
    if latent.get(MASK) is not None:
        raise EI2Error(
            "The latent carries a noise mask, but its record of the clip is lost (Save Latent drops it), so nothing "
            "can be kept outside the mask. Wire the latent of DDIM Invert Video, or take the mask off."
        )


def _kept_outside_mask(
    latent: dict, inversion: Inversion, frames: list[int | None], schedule: Schedule
) -> SourceOutsideMask | None:
    """What the noise mask of an inverted latent keeps of its source, set before the inversion or after it.

    frames: of the record, that the latent holds. Raises EI2Error for a mask that does not fit them.
    """
    later = latent.get(MASK)
    mask = inversion.mask if later is None else later
    if mask is None:
        return None
    strange = [i for i, frame in enumerate(frames) if frame is None]
    if strange:
        raise EI2Error(
            f"Frames {numbers(strange)} of the latent were not inverted with the others, so nothing of them can be "
            "kept outside the noise mask. Join clips before DDIM Invert Video, or take the mask off."
        )
    expected = len(inversion.checksums) if later is None else len(frames)
    count = mask.reshape(-1, *mask.shape[-2:]).shape[0]
    if count not in (1, expected):
        raise EI2Error(
            f"The noise mask has {count} frames and the clip {expected}. Give one mask for all frames, or one a frame."
        )
    if not mask.any():
        logging.warning("EI²: the noise mask is 0 everywhere, so nothing is edited: the source comes back as it is.")
    if later is None and count > 1:
        mask = mask.reshape(-1, 1, *mask.shape[-2:])[frames]
    return SourceOutsideMask(shares_of(mask, "The noise mask"), inversion.trajectory.of(frames), schedule.sigmas)


def _schedule(
    latent: dict, inflated: Inflated, table: torch.Tensor, steps: int, scaled: torch.Tensor, allow_mismatch: bool
) -> Schedule:
    """The schedule that leads back from an inverted latent, for the model it is to be sampled with.

    steps 0: the inversion's own. Without a record (the latent went through Save Latent, say) `steps` must be
    given, and the spread of the noise must fit it. scaled: the latent in the model's scale, for that check.
    allow_mismatch: of a latent inverted with another model or on another schedule only warn.
    """
    inversion = latent.get(RECORD)
    if inversion is None:
        return _schedule_by_steps(scaled, table, steps)
    mismatch = _other_model(inversion, inflated) or _other_sigmas(inversion, table)
    if mismatch and not allow_mismatch:
        raise EI2Error(
            f"This latent was inverted with {mismatch}. Wire the same model into DDIM Invert Video and this node, or "
            "set allow_mismatch of EI² Sampler or EI² DDIM Sampler to try it all the same."
        )
    if mismatch:
        logging.warning("EI²: the latent was inverted with %s; the clip will not come back as it was.", mismatch)
    if steps in (0, inversion.steps):
        return ddim_schedule(table, inversion.steps)
    other = ddim_schedule(table, steps)
    raise EI2Error(
        f"This latent was inverted in {inversion.steps} steps and ends at sigma {inversion.sigma_end:.2f}; {steps} "
        f"sampling steps start at sigma {other.sigma_end:.2f} on another grid. Set steps to 0 (the inversion's), or "
        f"invert again with {steps} steps."
    )


def _other_model(inversion: Inversion, inflated: Inflated) -> str | None:
    """What another model an inversion was made with, or None."""
    if inversion.prediction != inflated.spec.prediction:
        return f"{inversion.prediction}-prediction, but this model samples with {inflated.spec.prediction}-prediction"
    theirs, ours = inversion.fingerprint, inflated.fingerprint
    far, allowed = distance(theirs.numbers, ours.numbers), ours.allowed(theirs)
    if not far <= allowed:
        return f"another checkpoint (fingerprints differ by {far:.3f}, allowed {allowed:.3g})"
    if theirs.stored != ours.stored:
        kinds = [kind or "16 bits or more a number" for kind in (theirs.stored, ours.stored)]
        logging.warning(
            "EI²: the latent was inverted with a model stored as %s and is sampled with one stored as %s: the clip "
            "will not come back quite as it was.", *kinds,
        )  # fmt: skip
    return None


def _other_sigmas(inversion: Inversion, table: torch.Tensor) -> str | None:
    """What another schedule an inversion was made on, or None."""
    here = ddim_schedule(table, inversion.steps).sigma_end
    if abs(here - inversion.sigma_end) <= SAME_SIGMA * inversion.sigma_end:
        return None
    return f"another noise schedule: it ends at sigma {inversion.sigma_end:.2f}, this model's at {here:.2f}"


def _schedule_by_steps(scaled: torch.Tensor, table: torch.Tensor, steps: int) -> Schedule:
    if steps == 0:
        raise EI2Error(
            "This latent does not come from DDIM Invert Video, or lost its record on the way (Save Latent drops it). "
            "Wire the inverted latent here; EI² Sampler and EI² DDIM Sampler also take the number that it was inverted "
            "with, in steps."
        )
    schedule = ddim_schedule(table, steps)
    spread = float(scaled.std())
    if spread < schedule.sigma_end**0.5:  # a clean latent spreads about 1, inverted noise about sigma_end
        raise EI2Error(
            f"This latent has a spread of {spread:.2f}, but noise inverted in {steps} steps has about "
            f"{schedule.sigma_end:.2f}. It is not inverted noise: put DDIM Invert Video before this node."
        )
    return schedule
