"""Which of the UNet's group norms go over all frames of a clip, and when: in the calls of one model only."""

import functools
from collections.abc import Iterator
from contextlib import AbstractContextManager

from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock, UNetModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor, nn

from ....ei2_modules.config import POOLED, InflateOptions
from ....ei2_modules.inflation.group_norms import over_clips
from . import animatediff
from .forwards import replaced_forwards
from .frames import frames_in
from .keys import OURS


def add_pooled_norms(model: ModelPatcher, options: InflateOptions) -> None:
    """For every call of the model, and no longer than it lasts: other models share these norms."""
    if options.group_norm == POOLED:
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, OURS, _pooling)
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, OURS, _refusing)


def remove_pooled_norms(model: ModelPatcher) -> None:
    """Undo `add_pooled_norms` in a clone, but for wrappers around a whole sampling: `deflate` takes out all of ours."""
    model.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, OURS)


def pooled(module: nn.Module, frames: int) -> AbstractContextManager:
    """The group norms of a UNet, or of a part of it, over clips of so many frames; those of other clips stay apart."""
    return replaced_forwards({norm: functools.partial(over_clips, norm.forward, frames) for norm in _norms(module)})


def as_they_are(module: nn.Module) -> AbstractContextManager:
    """The norms as they are now, for a later recomputation of what is computed now."""
    return replaced_forwards({norm: norm.forward for norm in _norms(module) if "forward" in norm.__dict__})


def _pooling(executor, x: Tensor, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    options = transformer_options or {}
    with pooled(executor.class_obj.diffusion_model, frames_in(options, len(x))):
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _refusing(executor, *args, **kwargs):
    animatediff.refuse_pooled_norms(executor.class_obj.model_patcher)
    return executor(*args, **kwargs)


def _norms(module: nn.Module) -> Iterator[nn.Module]:
    for part in module.modules():
        if isinstance(part, ResBlock):
            yield part.in_layers[0]
            yield part.out_layers[0]
        elif isinstance(part, UNetModel):
            yield part.out[0]
