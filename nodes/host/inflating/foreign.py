"""What other nodes bring that does not fit ours or the clip: said when sampling; hooks in our places stop a tuning."""

import functools
import logging
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider

from ....ei2_modules.attention.layouts import crossing
from ....ei2_modules.config import InflateOptions
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..conditioning import misfits
from .attention_hooks import is_ours


def foreign_attention(model_options: dict, spec: UNetSpec, options: InflateOptions) -> list[tuple]:
    """Places of our frame attention where another node does it: by a later hook, or by one for a single block."""
    replaced = model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    taken = (key[:2] for key, hook in replaced.items() if not is_ours(hook))
    return sorted(crossing(options.attention, spec.places()).keys() & set(taken))


def refuse_foreign_attention(model: ModelPatcher, spec: UNetSpec, options: InflateOptions) -> None:
    """Raise EI2Error when another node has taken our place in the self-attention: tuning would not fit sampling."""
    foreign = foreign_attention(model.model_options, spec, options)
    if foreign:
        raise EI2Error(
            f"Another node replaces the self-attention of {len(foreign)} blocks (first {foreign[0][0]} "
            f"{foreign[0][1]}), as Self-Attention Guidance does. Put that node behind One-Shot Tune, or leave it out."
        )


def telling_wrapper(spec: UNetSpec, options: InflateOptions, tuned_frames: int | None) -> Callable:
    """For the host's sampling of any kind: say where frames do not see each other, and what does not fit the clip."""
    said = set()  # by this model: inversion and sampling run it more than once

    def outer_sample(executor, noise, *args, **kwargs):
        for line in _unfitting(executor.class_obj, len(noise), tuned_frames):
            if line not in said:
                said.add(line)
                logging.warning("EI²: %s", line)
        foreign = foreign_attention(executor.class_obj.model_options, spec, options)
        if foreign:
            _warn(options.attention, len(foreign), *foreign[0])
        return executor(noise, *args, **kwargs)

    return outer_sample


def _unfitting(guider: CFGGuider, frames: int, tuned_frames: int | None) -> list[str]:
    unused = {"negative"} if guider.cfg == 1 else {}
    used = ((name, conds) for name, conds in guider.conds.items() if name not in unused)
    lines = [line for name, conds in used for line in misfits(conds, name, frames)]
    if tuned_frames and frames < tuned_frames:
        lines.append(
            f"This model was tuned on {tuned_frames} frames and samples {frames}. Where a node lays frames out in a "
            "grid (RAVE), a grid counts as one frame: frame attention and temporal modules do not look into it."
        )
    return lines


@functools.cache
def _warn(attention: str, count: int, block: str, number: int) -> None:
    logging.warning(
        "EI²: another node replaces the self-attention of %d blocks (first %s %d); there is no %s there.",
        count, block, number, attention,
    )  # fmt: skip
