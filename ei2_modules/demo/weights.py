"""The shipped files, in half precision: UNet, text encoder, autoencoder and preview colours; and a ControlNet."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import EI2Error

FILE = Path(__file__).parent / "model.safetensors"
CONTROLNET = Path(__file__).parent / "controlnet.safetensors"
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
    _write(path, {part: getattr(weights, part) for part in PARTS}, weights.training)


def load(path: Path = FILE) -> DemoWeights:
    """Read the shipped file, in single precision. Raises EI2Error if it is missing or damaged."""
    parts, training = _read(path, PARTS)
    return DemoWeights(**parts, training=training)


def save_controlnet(path: Path, weights: dict[str, Tensor], training: dict) -> None:
    _write(path, {"controlnet": weights}, training)


def load_controlnet(path: Path = CONTROLNET) -> dict[str, Tensor]:
    """The ControlNet's state dict, in single precision. Raises EI2Error if its file is missing or damaged."""
    return _read(path, ("controlnet",))[0]["controlnet"]


def _write(path: Path, parts: dict[str, dict[str, Tensor]], training: dict) -> None:
    tensors = {f"{part}.{name}": tensor for part, found in parts.items() for name, tensor in found.items()}
    halves = {name: (t.half() if t.is_floating_point() else t).cpu().contiguous() for name, t in tensors.items()}
    save_file(halves, path, {"training": json.dumps(training)})


def _read(path: Path, names: tuple[str, ...]) -> tuple[dict[str, dict[str, Tensor]], dict]:
    """(the parts of these names, how they were trained)."""
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
    if set(parts) != set(names):
        raise EI2Error(
            f"The miniature model {path} holds {sorted(parts)}, not {sorted(names)}. Install the pack again."
        )
    return parts, training
