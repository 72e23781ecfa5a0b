"""An atlas as one safetensors file: parameters of the maps and not what they give, with a checksum."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..errors import WeightsError
from ..files import safetensors_file
from .atlas import Atlas, Layer
from .maps import Maps
from .texture import Box

KEY, FORMAT = "ei2_atlas", 1
AGAIN = "Use another copy, or fit the clip again."


def save(path: Path, atlas: Atlas) -> None:
    """Write whole or not at all. Raises EI2Error."""
    tensors = {f"alpha {k}": alpha for k, alpha in enumerate(atlas.alphas)}
    for k, layer in enumerate(atlas.layers):
        parts = {"affine": layer.maps.affine, "offsets": layer.maps.offsets, "texture": layer.texture}
        parts |= {"observed": layer.observed, "edited": layer.edited}
        tensors |= {f"{name} {k}": part for name, part in parts.items() if part is not None}
    if atlas.gains is not None:
        tensors["gains"] = atlas.gains
    boxes = [asdict(layer.box) for layer in atlas.layers]
    header = {"format": FORMAT, "size": atlas.size, "frames": atlas.frames, "boxes": boxes, "clip": atlas.clip}
    safetensors_file.save(path, tensors, {KEY: json.dumps(header), "format": "pt"})


def load(path: Path) -> Atlas:
    """Read and check a file. Raises WeightsError for what is no whole atlas."""
    tensors, metadata = safetensors_file.load(path)
    name = Path(path).name
    if KEY not in metadata:
        raise WeightsError(f"{name} holds no atlas: it is another kind of file. Choose one of Save Video Atlas.")
    try:
        header = json.loads(metadata[KEY])
        if header["format"] != FORMAT:
            raise WeightsError(f"{name} has format {header['format']}; this version reads {FORMAT}. Update the pack.")
        if safetensors_file.CHECKSUM not in metadata:
            raise KeyError("no checksum")
        atlas = _atlas(header, tensors)
        _check(atlas, header["frames"])
    except WeightsError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise WeightsError(f"{name} is no whole atlas ({error}). {AGAIN}") from error
    return atlas


def _atlas(header: dict, tensors: dict[str, Tensor]) -> Atlas:
    layers = []
    for k, box in enumerate(header["boxes"]):
        maps = Maps(tensors[f"affine {k}"], tensors.get(f"offsets {k}"))
        picture = tensors[f"texture {k}"], tensors[f"observed {k}"], tensors.get(f"edited {k}")
        layers.append(Layer(maps, Box(**box), *picture))
    alphas = tuple(tensors[f"alpha {k}"] for k in range(len(layers) - 1))
    return Atlas(tuple(header["size"]), tuple(layers), alphas, tensors.get("gains"), header["clip"])


def _check(atlas: Atlas, n: int) -> None:
    """Shapes are those the header tells of, and numbers are finite. Raises ValueError."""
    expected = [(alpha, (n, 1, *atlas.size)) for alpha in atlas.alphas]
    for layer in atlas.layers:
        plane = layer.box.rows, layer.box.columns
        expected += [(layer.maps.affine, (n, 2, 3)), (layer.texture, (3, *plane)), (layer.observed, plane)]
        expected += [] if layer.edited is None else [(layer.edited, plane)]
        expected += [] if layer.maps.offsets is None else [(layer.maps.offsets, (n, 2, *layer.maps.offsets.shape[2:]))]
    expected += [] if atlas.gains is None else [(atlas.gains, (n, 3, *atlas.gains.shape[2:]))]
    for tensor, shape in expected:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"a part is {tuple(tensor.shape)} and not {shape}")
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError("it holds values that are not finite")
