"""The shipped file: UNet, text encoder, autoencoder and preview colours, in half precision."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import EI2Error

FILE = Path(__file__).parent / "model.safetensors"
PARTS = ("unet", "text_encoder", "autoencoder", "preview")


@dataclass(frozen=True)
class DemoWeights:
    """State dicts of the parts. preview holds `factors` (channels, 3) and `bias` (3,): latents to RGB in -1..1."""

    unet: dict[str, Tensor]
    text_encoder: dict[str, Tensor]
    autoencoder: dict[str, Tensor]
    preview: dict[str, Tensor]
    training: dict  # how the file was made: seed, steps, scenes


def save(path: Path, weights: DemoWeights) -> None:
    tensors = {f"{part}.{name}": t for part in PARTS for name, t in getattr(weights, part).items()}
    halves = {name: (t.half() if t.is_floating_point() else t).cpu().contiguous() for name, t in tensors.items()}
    save_file(halves, path, {"training": json.dumps(weights.training)})


def load(path: Path = FILE) -> DemoWeights:
    """Read the shipped file, in single precision. Raises EI2Error if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            training = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise EI2Error(f"The miniature model {path} cannot be read ({error}). Install the pack again.") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, key = name.partition(".")
        parts.setdefault(part, {})[key] = tensor.float() if tensor.is_floating_point() else tensor
    if set(parts) != set(PARTS):
        raise EI2Error(
            f"The miniature model {path} holds {sorted(parts)}, not {sorted(PARTS)}. Install the pack again."
        )
    return DemoWeights(**parts, training=training)
