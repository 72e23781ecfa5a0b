"""Before the fit: what memory and time it will need. An update goes through the model as a tuning step does."""

from dataclasses import dataclass, replace
from typing import ClassVar

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.attention.windows import ANCHOR_FRAMES
from ....ei2_modules.config import WINDOW
from ....ei2_modules.errors import EI2Error
from ..tuning.preflight import MARGIN, STEP_PASSES, Demand, duration, gib


@dataclass(frozen=True)
class NullTextDemand(Demand):
    """Of one update, beyond the loaded model. In windows all of them are kept for one backward pass.

    Measured with 8 frames on a UNet of SD1.5's shape: 0.95 GiB for frames of 128x128 without checkpointing, where the
    estimate of a tuning step is 0.97, and with it 0.245 (0.064 for 64x64), more than that of a tuning.
    """

    checkpointed_bytes: ClassVar[float] = 100

    def advice(self, free: int) -> str:
        fewer, smaller = self.fewer_frames(free), self.smaller_frames(free)
        tips = ["start ComfyUI with --bf16-unet"] if self.dtype == torch.float32 else []
        tips += [f"invert at most {min(fewer, WINDOW)} frames"] if fewer else []
        tips += [f"make the frames {smaller}"] if smaller else []
        return ", or ".join(tips) or "close other programs that use the memory"


def demand_of(samples: Tensor, dtype: torch.dtype, clone: ModelPatcher, embedding: int) -> Demand:
    """With checkpointing where an update would not fit well in what is free now. embedding: how many numbers.

    Raises EI2Error when it will not fit at all.
    """
    handler = clone.model_options.get("context_handler")
    length = getattr(handler, "context_length", WINDOW)
    demand = NullTextDemand.of(samples, dtype, clone, embedding)
    if len(samples) <= length:
        return demand.choose("auto", clone.load_device)
    overlap = getattr(handler, "context_overlap", 0)
    windows = -(-(len(samples) - overlap) // max(1, length - overlap))
    # A block that is computed again does not find the anchors of its window.
    return replace(demand, frames=windows * length + ANCHOR_FRAMES).choose("off", clone.load_device)


def announce(demand: Demand, steps: int, inner: int, forward_seconds: float, device: torch.device) -> str:
    """One line for the user. forward_seconds: of one pass over the clip."""
    passes = steps * (inner * STEP_PASSES[demand.checkpointing] + 2)
    return (
        f"Null text: {memory(demand, device)} at its peak, and at most {duration(passes * forward_seconds)} for "
        f"{steps} steps of up to {inner} updates, both give or take a third"
    )


def memory(demand: Demand, device: torch.device) -> str:
    return f"{demand} need about {gib(demand.bytes)} of {gib(mm.get_free_memory(device))} GiB"


def out_of_memory(demand: Demand, device: torch.device) -> EI2Error:
    """After the estimate was wrong, or another program took the memory."""
    free = min(mm.get_free_memory(device), int(demand.bytes / MARGIN))
    return EI2Error(
        f"Out of memory while fitting the null text of {demand} about {gib(demand.bytes)} GiB an update. To fit: "
        f"{demand.advice(free)}."
    )
