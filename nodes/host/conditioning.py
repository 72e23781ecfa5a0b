"""Checks conditioning before work starts, and makes the copies of it that tuning and windows need."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.controlnet import ControlBase

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflation.unet_spec import UNetSpec
from ...ei2_modules.tuning.own_copy import own_copy
from . import controlnets
from .controlnets import rows


@dataclass(frozen=True)
class Texts:
    """The CONDITIONING of a tuning: the caption, and for previews what they avoid and what they show."""

    positive: list
    negative: list | None = None
    validation: list | None = None


def check(conditioning: list, name: str, spec: UNetSpec) -> None:
    """Raise EI2Error for empty conditioning, or text embeddings of another family of models or that are no numbers."""
    if not conditioning:
        raise EI2Error(f"The {name} conditioning is empty. Connect a CLIP Text Encode node (empty text is fine).")
    for embedding, _ in conditioning:
        if embedding.shape[-1] != spec.context_dim:
            raise EI2Error(
                f"The {name} conditioning is {embedding.shape[-1]} wide, but this {spec.family} model takes "
                f"{spec.context_dim}. Encode the text with the CLIP of the same checkpoint."
            )
        if not torch.isfinite(embedding).all():
            raise EI2Error(
                f"The {name} conditioning holds values that are not finite. Start ComfyUI with --fp32-text-enc, or "
                "load another copy of the text encoder."
            )


def check_for_tuning(conditioning: list, name: str) -> None:
    """Tuning learns the whole clip at every timestep from its caption, and from hints of ControlNets beside it."""
    for i, (_, options) in enumerate(conditioning, 1):
        limits = [what for what, limited in LIMITS.items() if limited(options)]
        if limits:
            raise EI2Error(
                f"The {name} conditioning carries {' and '.join(limits)} (entry {i} of {len(conditioning)}), which "
                "One-Shot Tune does not train with. Wire the plain CLIP Text Encode here, and the other into DDIM "
                "Invert Video and the EI² Sampler."
            )


LIMITS = {
    "a hook (a scheduled LoRA)": lambda options: options.get("hooks") is not None,
    "an area": lambda options: "area" in options,
    "a mask": lambda options: "mask" in options,
    "a timestep range": lambda options: options.get("start_percent", 0) > 0 or options.get("end_percent", 1) < 1,
    "a strength of 0": lambda options: options.get("strength", 1) == 0,
}


def out_of_inference_mode(value: Any) -> Any:
    """A copy whose tensors autograd may save, with ControlNets of its own. Call it outside inference mode."""
    if isinstance(value, ControlBase):
        return controlnets.copied(value)
    if isinstance(value, dict):
        return {k: out_of_inference_mode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(out_of_inference_mode(v) for v in value)
    return own_copy(value) if isinstance(value, torch.Tensor) and value.is_inference() else value


def checksum(conditioning: list) -> bytes:
    """Of its text embeddings: whether two say the same."""
    found = hashlib.blake2b(digest_size=16)
    for embedding, _ in conditioning:
        found.update(embedding.detach().to("cpu", torch.float32).contiguous().numpy())
    return found.digest()


def has_control(conditioning: list) -> bool:
    return any("control" in options for _, options in conditioning)


def misfits(conds: list[dict], name: str, frames: int) -> list[str]:
    """Where conditioning in the host's own form has more rows than the clip has frames, or fewer: a sentence each."""
    counts = []
    for cond in conds:
        tensors = ((cond.get(key), word) for key, word in ROWS.items())
        counts += [(len(t), word) for t, word in tensors if isinstance(t, torch.Tensor) and t.ndim > 2]
        counts += [(hints, "hint") for hints in controlnets.hint_counts(cond.get("control"))]
    return list(dict.fromkeys(_misfit(n, word, name, frames) for n, word in counts if n not in (1, frames)))


def notes(conditioning: list, name: str, frames: int) -> list[str]:
    """The same of CONDITIONING, for a report."""
    conds = [{**options, "cross_attn": embedding} for embedding, options in conditioning]
    return misfits(conds, name, frames)


ROWS = {"cross_attn": "text embedding", "mask": "mask"}


def _misfit(count: int, word: str, name: str, frames: int) -> str:
    left_over = f"{word}s {frames + 1} to {count} are not used" if count > frames + 1 else f"{word} {count} is not used"
    round_again = f"they go round, so that frame {count + 1} has {word} 1 again"
    return (
        f"The {name} conditioning has {count} {word}s for {frames} frame{'s' * (frames > 1)}: "
        f"{left_over if count > frames else round_again}. Give one for all frames, or one for each."
    )


def conds_of_frames(conds: list[dict], frames: Sequence[int]) -> list[dict]:
    """Of the host's own form of conditioning, what belongs to some frames of a clip."""
    found = []
    for cond in conds:
        models = {name: _of_frames(value, frames) for name, value in cond.get("model_conds", {}).items()}
        found.append({**cond, "model_conds": models})
        if "mask" in cond:
            found[-1]["mask"] = rows(cond["mask"], frames)
        if "control" in cond:
            found[-1]["control"] = controlnets.of_frames(cond["control"], frames)
    return found


def without_gradients(conds: list[dict]) -> list[dict]:
    """The same conditioning, whose ControlNets keep nothing for a backward pass."""
    frozen = controlnets.without_gradients
    return [{**cond, "control": frozen(cond["control"])} if "control" in cond else cond for cond in conds]


def _of_frames(value: Any, frames: Sequence[int]) -> Any:
    found = getattr(value, "cond", None)
    has_rows = isinstance(found, torch.Tensor) and found.ndim > 0
    return value._copy_with(rows(found, frames)) if has_rows else value
