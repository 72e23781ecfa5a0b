"""The number types that a model may compute in."""

import comfy.model_management as mm
import torch
from comfy.model_base import BaseModel

AUTO = "auto"
PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """For "auto": bf16 where the GPU computes in it, fp16 on older CUDA GPUs, fp32 elsewhere."""
    if precision != AUTO:
        return PRECISIONS[precision]
    if device.type == "cpu" or mm.is_device_mps(device):
        return torch.float32
    return torch.bfloat16 if mm.should_use_bf16(device) else torch.float16


def computes_in(model: BaseModel) -> torch.dtype:
    """Whatever its weights are stored in."""
    return model.manual_cast_dtype or model.get_dtype()


def dtype_name(dtype: torch.dtype) -> str:
    """As people and files write it: "bfloat16"."""
    return str(dtype).removeprefix("torch.")
