"""A checkpoint's own weights, beneath LoRAs and tuned queries: where they lie, what they mean, how coarse they are.

A quantised checkpoint means other numbers than it stores. Each kind has its own way to them: the host's layers
convert (scaled fp8), its tensors dequantise, layers of ComfyUI-GGUF cast, and what else a layer may be, it computes.
"""

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ..precision import dtype_name

FINE_BITS = 16  # a number, from which on it counts as not quantised
SAMPLE = 8192  # numbers of a weight that tell how far apart those are that it can hold


@dataclass(frozen=True)
class Storage:
    """How one weight is kept."""

    name: str  # of the type: "float16", "Q8_0"
    bits: float  # a number, scales included
    packed: bool  # in a form that is no plain tensor of its numbers
    step: float  # between neighbours, as a share of them, where floating-point numbers are kept

    @property
    def coarse(self) -> bool:
        return self.bits < FINE_BITS

    def __str__(self) -> str:
        return f"{self.name} ({self.bits:.3g} bits a number)"


def base_weight(model: ModelPatcher, key: str) -> Tensor:
    """A weight as the checkpoint holds it, whatever is patched in at the moment."""
    saved = model.backup.get(key)
    return saved.weight if saved is not None else model.get_model_object(key)


def meaning(model: ModelPatcher, key: str) -> Tensor:
    """The numbers that a linear layer's weight stands for, (out, in), beneath what is patched in."""
    layer, stored = _layer(model, key), base_weight(model, key)
    try:
        return _meaning(layer, stored)
    except Exception as error:  # a layer of another pack: for want of better, what it stores
        logging.warning("EI²: the weight %s, stored as %s, could not be read: %s", key, storage(model, key), error)
        return stored


def storage(model: ModelPatcher, key: str) -> Storage:
    """Of a linear layer's weight."""
    layer, stored = _layer(model, key), base_weight(model, key)
    parts = _parts(stored)
    size = sum(part.numel() * part.element_size() for part in parts)
    name = getattr(getattr(stored, "tensor_type", None), "name", None) or getattr(layer, "quant_format", None)
    numbers = layer.in_features * layer.out_features
    dtype = parts[0].dtype
    step = torch.finfo(dtype).eps if dtype.is_floating_point else 0.0
    return Storage(name or dtype_name(dtype), 8 * size / numbers, not _plain(layer, stored), step)


def is_packed(weight: Tensor) -> bool:
    """Whether it is no plain tensor of its shape's numbers, but stands for one."""
    return hasattr(weight, "__tensor_flatten__") or weight.numel() != math.prod(weight.shape)


def rounding(numbers: Tensor, stored: Storage) -> float:
    """What quantising took from a weight, as a share of its length: estimated, for nobody knows what it was.

    Blocks of b bits a number with scales of their own lose about 2^(1 - b), and floating-point numbers a quarter of
    their step. With one scale or none for the whole weight there are at most 256 different numbers, and each stands
    for all that are nearer to it than to others.
    """
    if not stored.coarse:
        return 0.0
    sample = numbers.flatten()[:SAMPLE].float().cpu()
    levels, which = sample.unique(return_inverse=True)
    lost = max(2 ** (1 - stored.bits), stored.step / 4)
    if 2 < len(levels) <= 256:
        edges = torch.cat([levels[:1], (levels[1:] + levels[:-1]) / 2, levels[-1:]])
        lost = max(lost, float((edges.diff()[which].square().mean() / 12).sqrt() / sample.square().mean().sqrt()))
    return lost


def _layer(model: ModelPatcher, key: str) -> nn.Module:
    return model.get_model_object(key.rpartition(".")[0])


def _parts(stored: Tensor) -> list[Tensor]:
    """The plain tensors that one is made of, by PyTorch's protocol for such; the largest first."""
    if not hasattr(stored, "__tensor_flatten__"):
        return [stored]
    return sorted((getattr(stored, name) for name in stored.__tensor_flatten__()[0]), key=lambda t: -t.numel())


def _plain(layer: nn.Module, stored: Tensor) -> bool:
    shape = (layer.out_features, layer.in_features)
    return tuple(stored.shape) == shape and stored.is_floating_point() and not is_packed(stored)


def _meaning(layer: nn.Module, stored: Tensor) -> Tensor:
    if hasattr(layer, "convert_weight"):  # the host's
        return layer.convert_weight(stored)
    if type(stored).dequantize is not Tensor.dequantize:
        return stored.dequantize()
    if _plain(layer, stored):
        return stored
    with _without_patches(layer, stored), torch.no_grad():
        if hasattr(layer, "cast_bias_weight"):  # ComfyUI-GGUF's
            return layer.cast_bias_weight(dtype=torch.float32, device=stored.device)[0]
        return layer(torch.eye(layer.in_features, device=stored.device)).T


@contextlib.contextmanager
def _without_patches(layer: nn.Module, stored: Tensor) -> Iterator[None]:
    """Of those that layers put on while they compute, and ComfyUI-GGUF keeps on the tensor."""
    held = [(o, name) for o, name in ((stored, "patches"), (layer, "weight_function")) if getattr(o, name, None)]
    before = [getattr(o, name) for o, name in held]
    for o, name in held:
        setattr(o, name, [])
    try:
        yield
    finally:
        for (o, name), value in zip(held, before, strict=True):
            setattr(o, name, value)
