"""Checks conditioning before work starts, and makes the copies of it that tuning and windows need."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.controlnet import ControlBase

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflation.unet_spec import UNetSpec


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
        return _copied_chain(value, lambda control: None)
    if isinstance(value, dict):
        return {k: out_of_inference_mode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(out_of_inference_mode(v) for v in value)
    return value.clone() if hasattr(value, "is_inference") and value.is_inference() else value


def has_control(conditioning: list) -> bool:
    return any("control" in options for _, options in conditioning)


def conds_of_frames(conds: list[dict], frames: Sequence[int]) -> list[dict]:
    """Of the host's own form of conditioning, what belongs to some frames of a clip."""
    found = []
    for cond in conds:
        models = {name: _of_frames(value, frames) for name, value in cond.get("model_conds", {}).items()}
        found.append({**cond, "model_conds": models})
        if "mask" in cond:
            found[-1]["mask"] = _rows(cond["mask"], frames)
        if "control" in cond:
            found[-1]["control"] = _copied_chain(cond["control"], lambda control: _keep_hints(control, frames))
    return found


def without_gradients(conds: list[dict]) -> list[dict]:
    """The same conditioning, whose ControlNets keep nothing for a backward pass."""
    return [{**cond, "control": _frozen(cond["control"])} if "control" in cond else cond for cond in conds]


def _copied_chain(control: ControlBase | None, change: Callable[[ControlBase], None]) -> ControlBase | None:
    """A ControlNet and those chained before it, each copied and changed."""
    if control is None:
        return None
    control = copy.copy(control)
    change(control)
    control.previous_controlnet = _copied_chain(control.previous_controlnet, change)
    return control


def _keep_hints(control: ControlBase, frames: Sequence[int]) -> None:
    hints = control.cond_hint_original
    if isinstance(hints, torch.Tensor) and len(hints) > 1:
        control.cond_hint_original, control.cond_hint = _rows(hints, frames), None


def _frozen(control: ControlBase) -> ControlBase:
    frozen = copy.copy(control)
    # Not its own method: a circle would keep every step's hints until Python looks for circles.
    frozen.get_control = torch.no_grad()(control.get_control)
    return frozen


def _rows(tensor: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
    """One row serves all frames. Too few go round, and too many are left over, as in the host."""
    return tensor if len(tensor) == 1 else tensor[[i % len(tensor) for i in frames]]


def _of_frames(value: Any, frames: Sequence[int]) -> Any:
    found = getattr(value, "cond", None)
    rows = isinstance(found, torch.Tensor) and found.ndim > 0
    return value._copy_with(_rows(found, frames)) if rows else value
