"""The model that a tuning trains in: a clone made ready, its queries trained, its blocks recomputed to save memory."""

import contextlib

import torch
import torch.nn.functional as F
from comfy.ldm.modules import attention as host_attention
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import ResBlock
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers.torch_compile import COMPILE_KEY
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from ...ei2_modules.trainables import Trainables
from ...ei2_modules.weights import EI2Weights
from . import memory
from .patch import KEY, remove_query_patches

FREE_NOISE = "ContextWindows_sampler_sample"  # of a newer host's Context Windows node: fails without its windows
BETWEEN_BLOCKS = ("input_block_patch", "input_block_patch_after_skip", "output_block_patch")  # kinds of patches


def clone_for_tuning(model, weights: EI2Weights | None, dtype):
    """Frame attention stays; tuned queries and the inference bank make room for the trained ones."""
    clone = memory.training_clone(model)
    if weights is not None:
        remove_query_patches(clone, weights)
    clone.remove_injections(KEY)
    clone.remove_additional_models(KEY)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    clone.remove_wrappers_with_key(WrappersMP.SAMPLER_SAMPLE, FREE_NOISE)
    clone.remove_wrappers_with_key(WrappersMP.APPLY_MODEL, COMPILE_KEY)  # it would compile anew for all we change
    clone.add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, KEY, _ask_for_one_frame)
    options = clone.model_options["transformer_options"]
    options.setdefault(KEY, "tuning")  # mode without temporal modules has no token
    # Backward needs exact attention; the host may have chosen an inference-only kernel.
    options["optimized_attention_override"] = lambda f, *a, **k: host_attention.attention_pytorch(*a, **k)
    options["patches"] = _patches_that_keep_copies(options.get("patches", {}))
    clone.set_model_compute_dtype(dtype)
    return clone


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


def unshare_skips(model) -> None:
    """The host adds residuals of ControlNets to the skips in place: the blocks behind keep copies for backward."""
    model.set_model_input_block_patch_after_skip(lambda h, transformer_options: h.clone())


@contextlib.contextmanager
def trained_queries(unet, trainables: Trainables):
    """Each query projection computes with its trained fp32 weight, cast to the type it is called in."""
    with _replaced_forwards({unet.get_submodule(p): _linear(w) for p, w in trainables.queries().items()}):
        yield


def _linear(weight):
    return lambda x: F.linear(x, weight.to(x.dtype))


def checkpointed_blocks(unet, enabled: bool):
    """Recompute transformer and residual blocks in the backward pass instead of keeping their activations."""
    kinds = (BasicTransformerBlock, ResBlock)
    modules = [m for m in unet.modules() if enabled and isinstance(m, kinds)]
    return _replaced_forwards({m: _recomputed(m.forward) for m in modules})


def _recomputed(forward):
    def run(*args, **kwargs):
        # The UNet changes this dict as it goes: a recomputed block must see it as it was.
        if "transformer_options" in kwargs:
            kwargs = {**kwargs, "transformer_options": dict(kwargs["transformer_options"])}
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)

    return run


def checkpointed_bank(trainables: Trainables) -> dict:
    return {
        path: (lambda x, n, module=module: checkpoint(module, x, n, use_reentrant=False))
        for path, module in trainables.bank.items()
    }


@contextlib.contextmanager
def _replaced_forwards(forwards: dict):
    """Set `forward` on these module instances and take it off again."""
    try:
        for module, forward in forwards.items():
            module.forward = forward
        yield
    finally:
        for module in forwards:
            module.__dict__.pop("forward", None)
