"""Loads a model so that it can be trained in, and decides the precision from the device."""

import contextlib
import inspect

import comfy.model_management as mm
import comfy.model_patcher
import torch
from torch import nn

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflate import UNetSpec

WHOLE = 1e32  # bytes: more than any model
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """For "auto": bf16 where the GPU computes in it, fp16 on older CUDA GPUs, fp32 elsewhere."""
    if precision != "auto":
        return PRECISIONS[precision]
    if device.type == "cpu" or mm.is_device_mps(device):
        return torch.float32
    return torch.bfloat16 if mm.should_use_bf16(device) else torch.float16


def training_clone(model):
    """A clone to train in: compute in one type, none of the guidance patches, dynamic loading off."""
    dynamic = "disable_dynamic" in inspect.signature(model.clone).parameters
    clone = model.clone(disable_dynamic=True) if dynamic else model.clone()
    clone.model_options = {"transformer_options": clone.model_options["transformer_options"]}
    return clone


@contextlib.contextmanager
def loaded_for_training(model, spec: UNetSpec):
    """Whole on its device, frozen, and with ordinary tensors in place of inference tensors; undone at the end."""
    for path in spec.query_paths():
        weight = model.get_model_object(f"diffusion_model.{path}.weight")
        if weight.dtype.itemsize == 1 or not weight.is_floating_point():
            raise EI2Error(
                f"The model's weights are stored in {str(weight.dtype).removeprefix('torch.')}, too coarse to hold "
                "what tuning changes. Load the checkpoint in fp16, bf16 or fp32 (weight_dtype default)."
            )
    try:
        mm.load_models_gpu([model], memory_required=1e20, force_full_load=True)
        model.partially_load(model.load_device, WHOLE)  # with --novram the host does not heed force_full_load
        _leave_inference_mode(model.model)
        model.model.requires_grad_(False)
        yield model.model.diffusion_model
    finally:
        # The next load by any node starts afresh, which also takes back the compute type.
        model.detach()
        for module in model.model.modules():  # marks that it leaves here would make a partial load pass patches over
            comfy.model_patcher.wipe_lowvram_weight(module)
        mm.cleanup_models_gc()


def _leave_inference_mode(module: nn.Module) -> None:
    """Tensors born in the host's inference mode cannot be saved for backward; equal copies can."""
    for m in module.modules():
        for name, p in m._parameters.items():
            if p is not None and p.is_inference():
                m._parameters[name] = nn.Parameter(p.detach().clone(), requires_grad=False)
        for name, b in m._buffers.items():
            if b is not None and b.is_inference():
                m._buffers[name] = b.clone()


def room_to_decode(vae, shape: tuple) -> bool:
    """Whether a VAE can decode latents of this shape without the host unloading the model that is being trained."""
    needed = 1.1 * vae.patcher.model_size() + vae.memory_used_decode(shape, vae.vae_dtype)
    return needed + mm.minimum_inference_memory() < mm.get_free_memory(vae.device)
