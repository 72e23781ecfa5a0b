"""The folder that the published code of Layered Neural Atlases leaves: `checkpoint`, and the `config.json` beside it.

The checkpoint is a file of PyTorch's own: it is read as weights and nothing else, so what it may hold of code is not
run. The config tells the size of the frames; of the networks it only confirms what the weights say.
"""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import EI2Error, WeightsError
from .maps import Size
from .nla import SIDES, Network, Networks

CHECKPOINT, CONFIG = "checkpoint", "config.json"
STATES = {
    "foreground": "model_F_mapping1_state_dict",
    "background": "model_F_mapping2_state_dict",
    "alpha": "model_F_alpha_state_dict",
    "atlas": "F_atlas_state_dict",
}
ZIP = b"PK\x03\x04"  # older files are read by code in which PyTorch before 2.6 ran what they hold, asked for or not
AGAIN = "Copy it again from the results of the training."
BOTH = "Copy checkpoint and config.json of one training together."


@dataclass(frozen=True)
class Trained:
    """What a folder holds."""

    networks: Networks
    size: Size
    most: int  # frames; of a longer folder the training took the first ones

    def fits(self, n: int, size: Size) -> None:
        """Raises EI2Error for a clip that it cannot have been trained on."""
        (h, w), (height, width) = self.size, size
        if tuple(size) != self.size:
            raise EI2Error(
                f"The networks were trained on frames of {w}x{h} (config.json), and images are {width}x{height}. Scale "
                f"the clip that they were trained on to {w}x{h} with Upscale Image, crop disabled."
            )
        if n > self.most:
            raise EI2Error(
                f"The networks were trained on {self.most} frames at most (config.json), and images are {n}. Wire the "
                f"first {self.most}: the frames that they were trained on."
            )


def load(folder: Path) -> Trained:
    """Read and check both files. Raises WeightsError, with what is wrong and what to do."""
    saved, config = _checkpoint(Path(folder) / CHECKPOINT), _config(Path(folder) / CONFIG)
    found = {}
    for name, key in STATES.items():
        try:
            found[name] = Network.of(saved[key], *SIDES[name])
        except WeightsError as error:
            raise WeightsError(f"{CHECKPOINT}: {key} {error}. {AGAIN}") from error
        _confirm(found[name], config, name)
    return Trained(Networks(**found), (config["resy"], config["resx"]), config["maximum_number_of_frames"])


def _checkpoint(path: Path) -> dict:
    _whole(path)
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # its reader raises nearly anything
        raise WeightsError(_unread(path.name, error)) from error
    missing = [key for key in STATES.values() if not isinstance(saved, dict) or not isinstance(saved.get(key), dict)]
    if missing:
        raise WeightsError(
            f"{path.name} lacks {', '.join(missing)}: it is no checkpoint of Layered Neural Atlases. Choose the file "
            "of that name in the results of its training."
        )
    return saved


def _whole(path: Path) -> None:
    """PyTorch's reader does not notice bits that flipped; the archive has a checksum of every tensor."""
    try:
        with path.open("rb") as file:
            start = file.read(len(ZIP))
        if start != ZIP:
            raise WeightsError(f"{path.name} is no file of PyTorch 1.6 or newer: those begin as a zip archive. {AGAIN}")
        with zipfile.ZipFile(path) as archive:
            script = any(name.endswith("/constants.pkl") for name in archive.namelist())
            bad = archive.testzip()
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read: {error}. {AGAIN}") from error
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise WeightsError(f"{path.name} is damaged or half copied: {error}. {AGAIN}") from error
    if script:
        raise WeightsError(f"{path.name} is a program (TorchScript) and no weights, so it was not read. {AGAIN}")
    if bad:
        raise WeightsError(f"{path.name} is damaged or half copied: {bad} has changed. {AGAIN}")


def _unread(name: str, error: Exception) -> str:
    if "GLOBAL" in str(error):  # of what weights do not need
        return f"{name} holds more than weights, so it was not read: code may run from such a file. {AGAIN}"
    return f"{name} cannot be read as weights: {str(error).partition(chr(10))[0]}. {AGAIN}"


def _config(path: Path) -> dict:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be read: {error}. {BOTH}") from error
    except ValueError as error:
        raise WeightsError(f"{path.name} is no JSON: {error}. {BOTH}") from error
    for key in ("resx", "resy", "maximum_number_of_frames"):
        value = config.get(key) if isinstance(config, dict) else None
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise WeightsError(f"{path.name} has {value!r} for {key}: a whole number is needed. {BOTH}")
    return config


def _confirm(network: Network, config: dict, name: str) -> None:
    """The config may leave a key out, but not contradict the weights."""
    name = {"foreground": "mapping1", "background": "mapping2"}.get(name, name)
    found = {
        f"number_of_layers_{name}": len(network.weights),
        f"number_of_channels_{name}": network.width,
        f"positional_encoding_num_{name}": network.frequencies,
        f"use_positional_encoding_{name}": network.frequencies > 0,
    }
    if network.frequencies:
        found[f"number_of_positional_encoding_{name}"] = network.frequencies
    for key, value in found.items():
        if config.get(key, value) != value:
            raise WeightsError(
                f"{CONFIG} says {config[key]!r} for {key} and {CHECKPOINT} holds {value!r}: they are of two "
                f"trainings. {BOTH}"
            )
