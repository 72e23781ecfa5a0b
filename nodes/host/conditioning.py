"""Checks conditioning before work starts, and frees it from the host's inference mode for tuning."""

import copy
from dataclasses import dataclass

import torch
from comfy.controlnet import ControlBase

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflate import UNetSpec


@dataclass(frozen=True)
class Texts:
    """The CONDITIONING of a tuning: the caption, and for previews what they avoid and what they show."""

    positive: list
    negative: list | None = None
    validation: list | None = None


def check(conditioning, name: str, spec: UNetSpec) -> None:
    """Raise EI2Error for empty conditioning or text embeddings made for another family of models."""
    if not conditioning:
        raise EI2Error(f"The {name} conditioning is empty. Connect a CLIP Text Encode node (empty text is fine).")
    for embedding, _ in conditioning:
        if embedding.shape[-1] != spec.context_dim:
            raise EI2Error(
                f"The {name} conditioning is {embedding.shape[-1]} wide, but this {spec.family} model takes "
                f"{spec.context_dim}. Encode the text with the CLIP of the same checkpoint."
            )


def check_for_tuning(conditioning, name: str) -> None:
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


def out_of_inference_mode(value):
    """A copy whose tensors autograd may save, with ControlNets of its own. Call it outside inference mode."""
    if isinstance(value, ControlBase):
        value = copy.copy(value)
        value.previous_controlnet = out_of_inference_mode(value.previous_controlnet)
        return value
    if isinstance(value, dict):
        return {k: out_of_inference_mode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(out_of_inference_mode(v) for v in value)
    return value.clone() if hasattr(value, "is_inference") and value.is_inference() else value


def has_control(conditioning) -> bool:
    return any("control" in options for _, options in conditioning)


def freeze_controls(conds: list[dict]) -> list[dict]:
    """Of the host's own form of conditioning: nothing of these ControlNets is kept for a backward pass from now on."""
    for cond in conds:
        if "control" in cond:
            control, cond["control"] = cond["control"], copy.copy(cond["control"])
            # Not its own method: a circle would keep every step's hints until Python looks for circles.
            cond["control"].get_control = torch.no_grad()(control.get_control)
    return conds
