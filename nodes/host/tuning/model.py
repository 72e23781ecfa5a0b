"""The model that gradients go through: a clone made ready, loaded whole, its blocks recomputed where that is asked for.

A tuning trains queries and temporal modules in it; null-text inversion asks it for the gradient of a text.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator

import comfy.model_management as mm
import comfy.model_patcher
import torch
import torch.nn.functional as F
from comfy.ldm.modules import attention as host_attention
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.temporal_bank import TemporalBank
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ....ei2_modules.tuning.own_copy import own_copy
from ..inflating import animatediff
from ..inflating.base_weights import is_packed, storage
from ..inflating.forwards import replaced_forwards
from ..inflating.group_norms import as_they_are
from ..inflating.guidance import without_guidance
from ..inflating.inflate import Inflated
from ..inflating.keys import OURS
from ..inflating.query_patches import remove_queries
from ..inflating.temporal_hook import attach, detach, new_token, remove_temporal

WHOLE = 1e32  # bytes: more than any model
FREE_NOISE = "ContextWindows_sampler_sample"  # of a newer host's Context Windows node: fails without its windows
BETWEEN_BLOCKS = ("input_block_patch", "input_block_patch_after_skip", "output_block_patch")  # kinds of patches


def tuning_clone(model: ModelPatcher, inflated: Inflated, dtype: torch.dtype, control: bool) -> ModelPatcher:
    """A clone to train in, computing in one type. Frame attention stays; tuned queries and the inference bank make
    room for the trained ones; guidance, step caches, windows and compilation stay out.

    control: ControlNets take part.
    """
    clone = gradient_clone(model, "tuning", control)
    clone.model_options = {"transformer_options": clone.model_options["transformer_options"]}
    remove_queries(clone, inflated.weights)
    animatediff.remove(clone)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, OURS)
    clone.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, FREE_NOISE)
    clone.set_model_compute_dtype(dtype)
    return clone


def gradient_clone(model: ModelPatcher, doing: str, control: bool) -> ModelPatcher:
    """A clone that a backward pass can go through. Temporal modules make room for those of `computing_with`; guidance,
    step caches and compilation stay out.

    doing: in words, for the log. control: ControlNets take part.
    """
    model = without_guidance(model, doing)
    dynamic = "disable_dynamic" in inspect.signature(model.clone).parameters
    clone = model.clone(disable_dynamic=True) if dynamic else model.clone()
    options = clone.model_options["transformer_options"]
    remove_temporal(clone)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)  # it would compile anew for all we change
    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, OURS, _ask_for_one_frame)
    # Backward needs exact attention; the host may have chosen an inference-only kernel.
    options["optimized_attention_override"] = lambda f, *a, **k: host_attention.attention_pytorch(*a, **k)
    options["patches"] = _patches_that_keep_copies(options.get("patches", {}))
    if control:  # the host adds their residuals to the skips in place: the blocks behind keep copies for backward
        clone.set_model_input_block_patch_after_skip(lambda h, transformer_options: h.clone())
    return clone


@contextlib.contextmanager
def loaded_for_training(clone: ModelPatcher, spec: UNetSpec) -> Iterator[dict[str, torch.Tensor]]:
    """As `loaded_whole`. Gives the query weights of the frozen model by their paths."""
    _refuse_coarse_weights(clone, spec)
    with loaded_whole(clone):
        yield {path: clone.model.diffusion_model.get_submodule(path).weight for path in spec.query_paths()}


@contextlib.contextmanager
def loaded_whole(clone: ModelPatcher) -> Iterator[None]:
    """On its device, frozen, and with ordinary tensors in place of inference tensors; undone at the end."""
    try:
        mm.load_models_gpu([clone], memory_required=1e20, force_full_load=True)
        clone.partially_load(clone.load_device, WHOLE)  # with --novram the host does not heed force_full_load
        _leave_inference_mode(clone.model)
        clone.model.requires_grad_(False)
        yield
    finally:
        # The next load by any node starts afresh, which also takes back the compute type.
        clone.detach()
        for module in clone.model.modules():  # marks that it leaves here would make a partial load pass patches over
            comfy.model_patcher.wipe_lowvram_weight(module)
        mm.cleanup_models_gc()


@contextlib.contextmanager
def computing_with(
    clone: ModelPatcher, bank: TemporalBank, queries: dict[str, nn.Parameter], checkpointing: bool
) -> Iterator[None]:
    """The loaded clone computes with these temporal modules, and these query weights at their paths.

    checkpointing: recompute blocks in the backward pass instead of keeping their activations.
    """
    unet = clone.model.diffusion_model
    bank = dict(bank.items())
    temporal = {path: _recomputed_module(module) for path, module in bank.items()} if checkpointing else bank
    attach(clone.model, temporal, new_token(clone))
    try:
        projections = {unet.get_submodule(path): _linear(w) for path, w in queries.items()}
        with replaced_forwards(projections), replaced_forwards(_recomputed_blocks(unet) if checkpointing else {}):
            yield
    finally:
        detach(clone.model)


def _refuse_coarse_weights(clone: ModelPatcher, spec: UNetSpec) -> None:
    for path in spec.query_paths():
        stored = storage(clone, f"diffusion_model.{path}.weight")
        if stored.coarse or stored.packed:
            why = "too coarse to hold what tuning changes" if stored.coarse else "packed, so that none can be trained"
            raise EI2Error(
                f"The model's weights are stored as {stored}, {why}. Load the checkpoint in fp16, bf16 or fp32 "
                "(weight_dtype default, no quantised file)."
            )


def _leave_inference_mode(module: nn.Module) -> None:
    """Tensors born in the host's inference mode cannot be saved for backward; equal copies can."""
    for m in module.modules():
        for name, p in m._parameters.items():
            # Packed weights stay as they are: their layers unpack them into new tensors.
            if p is not None and p.is_inference() and p.is_floating_point() and not is_packed(p):
                m._parameters[name] = nn.Parameter(own_copy(p), requires_grad=False)
        for name, b in m._buffers.items():
            if b is not None and b.is_inference():
                m._buffers[name] = own_copy(b)


def _ask_for_one_frame(executor, model, noise_shape, *args, **kwargs):
    """The model is loaded whole by now: to make room for a long clip the host would take it apart again."""
    return executor(model, [1, *noise_shape[1:]], *args, **kwargs)


def _patches_that_keep_copies(patches: dict) -> dict:
    """Patches between blocks may change in place what they keep for the backward pass, as FreeU_V2 does."""

    def keeping(patch):
        def run(*args):
            with saved_tensors_hooks(torch.clone, lambda tensor: tensor):
                return patch(*args)

        return run

    return {
        kind: [keeping(p) for p in of_kind] if kind in BETWEEN_BLOCKS else of_kind for kind, of_kind in patches.items()
    }


def _linear(weight: nn.Parameter) -> Callable:
    """A projection with its trained fp32 weight, cast to the type it is called in."""
    return lambda x: F.linear(x, weight.to(x.dtype))


def _recomputed_blocks(unet: nn.Module) -> dict[nn.Module, Callable]:
    """Transformer and residual blocks."""
    kinds = (BasicTransformerBlock, ResBlock)
    return {m: _recomputed(m) for m in unet.modules() if isinstance(m, kinds)}


def _recomputed(block: nn.Module) -> Callable:
    forward = block.forward

    def run(*args, **kwargs):
        # The UNet changes this dict as it goes: a recomputed block must see it as it was.
        if "transformer_options" in kwargs:
            kwargs = {**kwargs, "transformer_options": dict(kwargs["transformer_options"])}
        return checkpoint(forward, *args, use_reentrant=False, context_fn=norms, **kwargs)

    def norms():
        return contextlib.nullcontext(), as_they_are(block)

    return run


def _recomputed_module(module: nn.Module) -> Callable:
    return lambda x, frames: checkpoint(module, x, frames, use_reentrant=False)
