"""Whether an edit under attention control can follow its clip: said before the first step."""

from comfy.model_patcher import ModelPatcher

from ....ei2_modules.errors import EI2Error
from .. import conditioning
from ..control.guider import Control, ControlledGuider, SourceClip
from ..inflating.inflate import Inflated
from ..progress import warn
from .inverted import Inverted
from .record import RECORD, checksums


def controlled_guider(
    model: ModelPatcher, inflated: Inflated, control: Control, start: Inverted, positive: list, cfg: float, node: str
) -> ControlledGuider:
    """The guider of an edit, in the name of `node`. Raises EI2Error where control, latent and texts do not fit."""
    edit, options = control.edit, control.options
    conditioning.check(positive, "positive", inflated.spec)
    conditioning.check(edit.caption, "caption", inflated.spec)
    _check_prompt(control, positive, node)
    _check_source(control, start)
    _check_mask(control, len(start.samples))
    _check_null_text(control, inflated, start, cfg)
    if options.blend_threshold and control.mask is None and not (edit.blend.source or edit.blend.target):
        raise EI2Error(
            "Caption and prompt are the same words, so nothing says where the clip may change. Change a word of the "
            "prompt, name blend words in Prompt Edit, or give Attention Control a mask."
        )
    record = start.latent.get(RECORD)
    if record is not None and record.text is not None and record.text not in edit.inverts:
        warn(
            "The clip was inverted under another text than Prompt Edit's caption: that is neither the empty text nor "
            "the caption. The edit follows the clip less well. Wire Prompt Edit's caption into DDIM Invert Video."
        )
    noise = model.model.process_latent_in(start.samples)
    return ControlledGuider(model, inflated.spec, control, SourceClip(start.schedule, start.trajectory, noise))


def _check_prompt(control: Control, positive: list, node: str) -> None:
    if {conditioning.checksum([entry]) for entry in positive} == {conditioning.checksum(control.edit.prompt)}:
        return
    tokens = " and ".join(str(entry[0].shape[1]) for entry in positive)
    raise EI2Error(
        f"The positive of {node} ({tokens} tokens) is not the prompt of Prompt Edit "
        f"({control.edit.prompt[0][0].shape[1]} tokens), so its words cannot be told. Wire the output prompt of Prompt "
        "Edit into positive; Apply ControlNet and its like may lie between."
    )


def _check_source(control: Control, start: Inverted) -> None:
    options, needs = control.options, []
    needs += ["source along the inversion"] if options.source == "along the inversion" else []
    needs += ["fresh noise (kind shape)"] if options.noise_share else []
    needs += ["fused self-attention (kind FateZero)"] if options.fuse_threshold else []
    if start.trajectory is None and needs:
        raise EI2Error(
            f"Attention Control with {' and '.join(needs)} needs the latents that the clip was inverted through, and "
            "this latent has none for all of its frames: Save Latent drops them, and frames that were joined later "
            "have none. Wire the latent of DDIM Invert Video, or choose source own prediction and another kind."
        )


def _check_mask(control: Control, frames: int) -> None:
    if control.mask is None:
        return
    count = control.mask.reshape(-1, *control.mask.shape[-2:]).shape[0]
    if count not in (1, frames):
        raise EI2Error(
            f"The mask of Attention Control has {count} frames and the clip {frames}. Give one mask for all frames, or "
            "one for each."
        )
    if not control.mask.any():
        warn("The mask of Attention Control is 0 everywhere, so nothing is edited: the clip comes back as it is.")


def _check_null_text(control: Control, inflated: Inflated, start: Inverted, cfg: float) -> None:
    wanted, fitted = control.options.source == "null text", control.null_text
    if wanted and fitted is None:
        raise EI2Error(
            "Attention Control has source null text, and nothing is wired into null_text. Wire Null-Text Inversion "
            "there, or choose source along the inversion."
        )
    if wanted:
        caption = conditioning.checksum(control.edit.caption)
        fitted.check(inflated.fingerprint, start.schedule.steps, checksums(start.samples), cfg, caption)
    elif fitted is not None:
        warn(f"The null text is not used: Attention Control has source {control.options.source}.")
