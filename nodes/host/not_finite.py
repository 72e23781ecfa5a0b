"""What to do where a model, or a VAE, gives values that are not finite."""

import contextlib
from collections.abc import Iterator

import torch
from comfy.model_base import BaseModel
from comfy.sd import VAE

from ...ei2_modules.errors import NotFiniteError
from .precision import computes_in, dtype_name


@contextlib.contextmanager
def advising(model: BaseModel) -> Iterator[None]:
    """A sampling whose NotFiniteError says what to do with this model."""
    try:
        yield
    except NotFiniteError as error:
        raise error.with_advice(_advice(computes_in(model))) from error


def vae_advice(vae: VAE) -> str:
    dtype = getattr(vae, "vae_dtype", None)
    now = f"It computes in {dtype_name(dtype)} now" if dtype else "It may compute in too few bits"
    return f"{now}: start ComfyUI with --fp32-vae, or the decoded clip has black frames."


def _advice(dtype: torch.dtype) -> str:
    if dtype == torch.float16:
        return (
            "It computes in float16, which overflows with some checkpoints. Start ComfyUI with --bf16-unet, or with "
            "--fp32-unet where the card has no bf16; for Stable Diffusion 2.1 --force-upcast-attention may suffice."
        )
    return (
        f"It computes in {dtype_name(dtype)}, so it is not for want of bits: take LoRAs, ControlNets and tuned weights "
        "off one by one to find the one at fault, or load another copy of the checkpoint."
    )
