"""The temporal modules behind every block's feed-forward.

They live in a ModelPatcher of their own, which the host loads and offloads with the UNet; an injection hooks them in.
"""

import functools
import uuid
from collections.abc import Callable

import comfy.model_patcher
import comfy.ops
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import PatcherInjection

from ....ei2_modules.config import InflateOptions
from ....ei2_modules.inflation.temporal_bank import TemporalBank, fresh_bank
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ....ei2_modules.inflation.weights import EI2Weights
from .frames import frames_in
from .keys import CONTROL, OURS, TOKEN

_SLOT, _HANDLES = "_ei2_temporal", "_ei2_handles"


def add_temporal(model: ModelPatcher, spec: UNetSpec, options: InflateOptions, weights: EI2Weights | None) -> None:
    """Tuned modules, or fresh ones; nothing where the options name none."""
    bank = inference_bank(model, spec, options, weights)
    if not bank.items():
        return
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", ModelPatcher)
    patcher = patcher_class(bank, load_device=model.load_device, offload_device=model.offload_device)
    model.set_additional_models(OURS, [patcher])
    model.set_injections(OURS, [PatcherInjection(inject=_inject, eject=_eject)])
    new_token(model)


def inference_bank(
    model: ModelPatcher, spec: UNetSpec, options: InflateOptions, weights: EI2Weights | None
) -> TemporalBank:
    """Tuned modules, or fresh ones, frozen and in the model's own type, on the CPU."""
    bank = TemporalBank(spec, options.temporal, comfy.ops.manual_cast.Linear, _dtype(model)).requires_grad_(False)
    if bank.items():
        bank.load(weights.tensors.temporal if weights else fresh_bank(spec, options).folded(options.stam_init))
    return bank


def remove_temporal(model: ModelPatcher) -> None:
    """Undo `add_temporal` in a clone."""
    model.remove_injections(OURS)
    model.remove_additional_models(OURS)
    model.model_options["transformer_options"].pop(TOKEN, None)


def new_token(model: ModelPatcher) -> str:
    """Give this model's calls a token of their own, in its transformer options."""
    token = model.model_options["transformer_options"][TOKEN] = uuid.uuid4().hex
    return token


def attach(base_model: BaseModel, temporal: dict[str, Callable], token: str) -> None:
    """Hook `temporal` (path of a block -> callable(x, frames)) in after the feed-forward.

    The hooks act only in calls whose transformer options carry `token`: should the host drop a patcher
    without ejecting it, they are inert for every other model that shares the UNet.
    """
    detach(base_model)
    handles = []
    for path, module in temporal.items():
        block = base_model.diffusion_model.get_submodule(path)
        block.__dict__[_SLOT] = (token, module)  # past nn.Module: the UNet's state dict must not change
        handles.append(block.register_forward_hook(_temporal_hook, with_kwargs=True))
    base_model.__dict__[_HANDLES] = handles


def detach(base_model: BaseModel) -> None:
    """Undo `attach`; harmless when nothing is attached."""
    for handle in base_model.__dict__.pop(_HANDLES, ()):
        handle.remove()
    for block in base_model.diffusion_model.modules():
        block.__dict__.pop(_SLOT, None)


def _temporal_hook(block, args, kwargs, out):
    # One shared function reading the block's slot: a closure per block would make torch.compile recompile each.
    token, module = getattr(block, _SLOT)
    options = kwargs.get("transformer_options", {})
    if options.get(TOKEN) != token:
        return out
    control = options.get(CONTROL)
    taking = {} if control is None else {"taking": functools.partial(control.temporal_attention, extra=options)}
    return module(out, frames_in(options, out.shape[0]), **taking)


def _inject(patcher: ModelPatcher) -> None:
    bank = patcher.get_additional_models_with_key(OURS)[0].model
    attach(patcher.model, dict(bank.items()), patcher.model_options["transformer_options"][TOKEN])


def _eject(patcher: ModelPatcher) -> None:
    detach(patcher.model)


def _dtype(model: ModelPatcher) -> torch.dtype:
    """The model's own, or fp16 where that is none to compute in."""
    dtype = model.model_dtype()
    return dtype if dtype in (torch.float32, torch.float16, torch.bfloat16) else torch.float16
