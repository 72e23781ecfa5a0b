"""The file that a fit goes on from: what it moves, what Adam remembers of that, its start and its flow.

Start and flow take as long as many steps, and a GPU may round them otherwise the next time: they are kept, so that
going on is exact. A flow that is given is no part of the file.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ..files.state_file import StateFile
from ..motion.flow import Flow
from .fit import Fit
from .maps import Maps
from .options import FitOptions
from .start import Start
from .texture import Box

# Its number changes too when the same inputs give another fit: what is kept of the old one is not theirs.
FILE = StateFile("ei2_fit", 2, work="a fit", again="Fit anew")
PARTS = ("value", "first", "second", "seen")  # of Rows
FLOW = ("forward", "backward", "forward_agrees", "backward_agrees")


def save(path: Path, fit: Fit, key: str, seconds: float, with_flow: bool) -> None:
    """Whole or not at all, of a fit between two steps. seconds: what it took so far. Raises EI2Error."""
    parts = PARTS if fit.done < fit.steps else PARTS[:1]
    tensors = {f"{part} of {name}": getattr(rows, part) for name, rows in fit.rows.items() for part in parts}
    tensors |= {"generator": fit.drawn} | _of_start(fit.begun)
    header = {"key": key, "done": fit.done, "seconds": seconds, "boxes": [asdict(box) for box in fit.begun.boxes]}
    header |= {"tight": fit.begun.tight}
    if with_flow:
        tensors |= {f"flow {name}": getattr(fit.flow, name) for name in FLOW}
        header |= {"method": fit.flow.method}
    FILE.save(path, tensors, header)


def read(path: Path) -> tuple[str, int]:
    """(key, steps done), without reading the tensors. Raises WeightsError."""
    header = FILE.read(path)
    with FILE.refused_when_damaged(path):
        return str(header["key"]), int(header["done"])


def restore(path: Path, frames: Tensor, masks: tuple[Tensor, ...], flow: Flow | None, options: FitOptions,
            device: torch.device | str = "cpu") -> tuple[Fit, float]:  # fmt: skip
    """The fit of a file, and the seconds before; flow: the one that was given. Raises WeightsError."""
    tensors, header = FILE.load(path)
    with FILE.refused_when_damaged(path):
        flow = flow or Flow(*(tensors[f"flow {name}"] for name in FLOW), header["method"])
        fit = Fit(frames, masks, flow, _start(tensors, header), options, device)
        fit.done = int(header["done"])
        for name, rows in fit.rows.items():
            for part in PARTS if fit.done < fit.steps else PARTS[:1]:
                _put(getattr(rows, part), tensors[f"{part} of {name}"])
        fit.generator.set_state(tensors["generator"])
        fit.drawn = tensors["generator"]
        return fit, float(header["seconds"])


def _put(into: Tensor, found: Tensor) -> None:
    if into.shape != found.shape:
        raise ValueError(f"a part is {tuple(found.shape)} and not {tuple(into.shape)}")
    into.copy_(found)


def _of_start(begun: Start) -> dict[str, Tensor]:
    tensors = {f"start alpha {k}": alpha for k, alpha in enumerate(begun.alphas)}
    for k, maps in enumerate(begun.maps):
        parts = {"affine": maps.affine, "offsets": maps.offsets, "texture": begun.textures[k], "cover": begun.covers[k]}
        tensors |= {f"start {name} {k}": part for name, part in parts.items() if part is not None}
    return tensors if begun.gains is None else tensors | {"start gains": begun.gains}


def _start(tensors: dict[str, Tensor], header: dict) -> Start:
    boxes = tuple(Box(**box) for box in header["boxes"])
    layers = range(len(boxes))
    return Start(
        maps=tuple(Maps(tensors[f"start affine {k}"], tensors.get(f"start offsets {k}")) for k in layers),
        alphas=tuple(tensors[f"start alpha {k}"] for k in layers[:-1]),
        boxes=boxes,
        textures=tuple(tensors[f"start texture {k}"] for k in layers),
        covers=tuple(tensors[f"start cover {k}"] for k in layers),
        tight=bool(header["tight"]),
        gains=tensors.get("start gains"),
    )
