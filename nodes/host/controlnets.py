"""Copies of a cond's ControlNets, for some frames of a clip or for a backward pass.

Core's are plain objects: a shallow copy with fewer hints is a ControlNet of these frames. Those of other packs may keep
bound methods of themselves, which a shallow copy would still run on the original. Those made for AnimateDiff's windows
(they have `sub_idxs`) read in the transformer options which frames a call holds, and are left as they are.
"""

import copy
from collections.abc import Iterator, Sequence
from types import MethodType

import torch
from comfy.controlnet import ControlBase


def chooses_frames(control: ControlBase) -> bool:
    """Whether it finds the hints of a window by itself."""
    return hasattr(control, "sub_idxs")


def hint_counts(control: ControlBase | None) -> Iterator[int]:
    """How many hints a ControlNet has, and those chained before it, where they take their turn by their place."""
    while control is not None:
        hints = control.cond_hint_original
        if isinstance(hints, torch.Tensor) and not chooses_frames(control):
            yield len(hints)
        control = control.previous_controlnet


def copied(control: ControlBase | None) -> ControlBase | None:
    """One of one's own, before its sampling begins."""
    if control is None:
        return None
    made = control.copy() if _own_methods(control) else copy.copy(control)
    made.previous_controlnet = copied(control.previous_controlnet)
    return made


def of_frames(control: ControlBase | None, frames: Sequence[int]) -> ControlBase | None:
    """During its sampling, with the hints of these frames alone."""
    if control is None:
        return None
    before = of_frames(control.previous_controlnet, frames)
    if chooses_frames(control):
        return control if before is control.previous_controlnet else _behind(before, control)
    made = copy.copy(control)
    for name, method in _own_methods(control).items():
        setattr(made, name, MethodType(method.__func__, made))
    made.previous_controlnet = before
    hints = made.cond_hint_original
    if isinstance(hints, torch.Tensor) and len(hints) > 1:
        made.cond_hint_original, made.cond_hint = rows(hints, frames), None
        made.extra_concat_orig = [rows(mask, frames) for mask in made.extra_concat_orig]
    return made


def without_gradients(control: ControlBase) -> ControlBase:
    """Keeps nothing for a backward pass."""
    frozen = copy.copy(control)
    # Not its own method: a circle would keep every step's hints until Python looks for circles.
    frozen.get_control = torch.no_grad()(control.get_control)
    return frozen


def rows(tensor: torch.Tensor, frames: Sequence[int]) -> torch.Tensor:
    """One row serves all frames. Too few go round, and too many are left over, as in the host."""
    return tensor if len(tensor) == 1 else tensor[[i % len(tensor) for i in frames]]


def _own_methods(control: ControlBase) -> dict[str, MethodType]:
    """Bound methods of itself that it keeps in its attributes."""
    return {k: v for k, v in vars(control).items() if isinstance(v, MethodType) and v.__self__ is control}


def _behind(before: ControlBase, control: ControlBase) -> ControlBase:
    """The very ControlNet, which counts its calls, but with another one before it."""

    def get_control(*args, **kwargs):
        usual, control.previous_controlnet = control.previous_controlnet, before
        try:
            return control.get_control(*args, **kwargs)
        finally:
            control.previous_controlnet = usual

    made = copy.copy(control)
    made.previous_controlnet, made.get_control = before, get_control
    return made
