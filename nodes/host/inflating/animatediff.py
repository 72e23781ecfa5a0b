"""AnimateDiff-Evolved on a MODEL, known by what it leaves there: its context windows and motion models want the clip.

It cuts a clip inside the host's windows, so both at once cannot be.
"""

import logging

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....ei2_modules.config import WINDOW
from ....ei2_modules.errors import EI2Error

KEY, PARAMS = "ADE", "ADE_params"  # its wrappers and additional models, and its attachment


def context_length(model: ModelPatcher) -> int | None:
    """Frames of its windows, where Context Options are set."""
    return getattr(getattr(model.get_attachment(PARAMS), "context_options", None), "context_length", None)


def has_motion(model: ModelPatcher) -> bool:
    return bool(model.get_additional_models_with_key(KEY))


def cuts_the_clip(model: ModelPatcher, frames: int, by_host: bool) -> bool:
    """Whether it sees to this clip's windows, or needs the clip whole.

    by_host: windows of the host cut it too. Raises EI2Error for both at once.
    """
    length, motion = context_length(model), has_motion(model)
    if length is None and not motion:
        return False
    if by_host:
        why = f"its Context Options are set ({length} frames)" if length else "its motion model takes a clip whole"
        raise EI2Error(
            f"Context Windows cuts the clip of {frames} frames for AnimateDiff, but {why}. Take Context Windows out, "
            "and set AnimateDiff's Context Options where windows are wanted."
        )
    if length is None and frames > WINDOW:
        logging.warning(
            "EI²: AnimateDiff's motion model takes all %d frames at once. Its Context Options would cut them.", frames
        )
    return True


def refuse_pooled_norms(model: ModelPatcher) -> None:
    """Raise EI2Error: a motion model pools group norms by a way of its own, which ours would upset."""
    if has_motion(model):
        raise EI2Error(
            "The model carries a motion model of AnimateDiff, which changes the UNet's group norms itself, and Inflate "
            "UNet to EI² pools them. Set group_norm to 'per frame', and a mode that does not pool them."
        )


def refuse_motion(model: ModelPatcher) -> None:
    """Raise EI2Error: a step of tuning sees a run of frames, which a motion model would take for the clip."""
    if has_motion(model):
        raise EI2Error(
            "The model carries a motion model of AnimateDiff, which One-Shot Tune does not train with. Put the nodes "
            "of AnimateDiff behind One-Shot Tune."
        )


def remove(clone: ModelPatcher) -> None:
    """Its windows and settings of sampling, out of a clone to tune in."""
    if clone.get_attachment(PARAMS) is None:
        return
    logging.warning("EI²: AnimateDiff's sampling settings and Context Options play no part in the tuning.")
    clone.remove_attachments(PARAMS)
    for kind in (WrappersMP.OUTER_SAMPLE, WrappersMP.CALC_COND_BATCH):
        clone.remove_wrappers_with_key(kind, KEY)
