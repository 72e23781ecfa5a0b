"""What a tuning says of itself, in the header of its weights and in the card beside them."""

import platform

import comfy.model_management as mm
import comfyui_version
import torch

from ....ei2_modules import __version__
from ....ei2_modules.tuning.loop import Tuning
from ..precision import dtype_name
from .preflight import Demand
from .record import TuningRecord


def run_card(caption: str | None, frames: int, tuning: Tuning, demand: Demand, record: TuningRecord) -> dict:
    """Plain JSON. caption: in words. frames: of the clip. demand: of a step, which may not see the whole clip."""
    return {
        **machine(record.device),
        "caption": caption,
        "frames": frames,
        "window": demand.frames,
        "latent_size": [demand.height, demand.width],
        "steps": tuning.done,
        "learning_rate": tuning.options.learning_rate,
        "seed": tuning.options.seed,
        "precision": dtype_name(demand.dtype),
        "gradient_checkpointing": demand.checkpointing,
        "seconds": round(record.seconds, 2),
        "peak_mib": record.peak_mib,
        **losses(tuning.losses),
    }


def machine(device: torch.device) -> dict:
    """Versions and device, in general terms: no names of hosts or folders."""
    return {
        "version": __version__,
        "comfyui": comfyui_version.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": mm.get_torch_device_name(device) if device.type != "cpu" else "cpu",
    }


def losses(values: list[float]) -> dict:
    """In figures: the mean over the first and over the last tenth, and all."""
    tenth = max(1, len(values) // 10)
    first, last = (sum(part) / len(part) for part in (values[:tenth], values[-tenth:])) if values else (None, None)
    return {"loss_first": first, "loss_last": last, "losses": [round(value, 6) for value in values]}
