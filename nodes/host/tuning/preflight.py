"""Before step 0: what memory and time a tuning will need, and what to change when that is too much."""

from dataclasses import dataclass, replace
from typing import ClassVar

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher

from ....ei2_modules.errors import EI2Error
from ..inflating.unet import attended_channels
from ..precision import dtype_name

# Bytes that one training step holds at its peak, per frame, latent pixel and byte of precision: measured by
# benchmarks/memory/tuning_memory.py with FFAM r = 2, STAM and 8 frames, on UNets of SD1.5's and SDXL's shape.
BLOCK_BYTES = 33.8  # for each channel of the transformer blocks, by the share of the pixels that they see
UNET_BYTES, CHECKPOINTED_BYTES = 100, 81  # for each channel of the UNet's first level: the rest, or all there is
KEY_BYTES = 0.5  # as BLOCK_BYTES, for each frame beyond 8: every frame looks at the coarse tokens of all others
FRAMES = 8  # of what was measured
MARGIN = 1.15  # beyond it a tuning is refused. Without checkpointing the estimate was 3 % too high for 8 frames of
#                256x256 and right for 24 of 192x192; with it 4 to 8 % too high, and for tiny clips up to a third
ROOMY = 0.8  # of the free memory: above it "auto" checkpoints
STEP_PASSES = {False: 2.5, True: 3.7}  # passes forwards that one step takes as long as, by checkpointing: on a busy CPU
#                                        2.1 to 2.7 and 2.3 to 3.9 were measured


@dataclass(frozen=True)
class Demand:
    """Of one step, beyond the loaded model and its fp32 masters."""

    frames: int
    height: int  # of the latents
    width: int
    dtype: torch.dtype
    checkpointing: bool
    unet_width: int  # channels of its first level
    block_width: float  # channels of all transformer blocks, each by its share of the pixels
    casts: int  # bytes of weights that are converted for the step, and kept until its backward pass
    optimiser: int  # bytes of gradients and AdamW's two moments
    factor: int = 8  # pixels a latent pixel is wide
    checkpointed_bytes: ClassVar[float] = CHECKPOINTED_BYTES

    @classmethod
    def of(cls, samples: torch.Tensor, dtype: torch.dtype, model: ModelPatcher, trained: int) -> "Demand":
        """Without checkpointing. trained: how many numbers."""
        frames, _, height, width = samples.shape
        unet, factor = model.model.diffusion_model, getattr(model.model.latent_format, "spacial_downscale_ratio", 8)
        casts = sum(p.numel() for p in unet.parameters() if p.dtype != dtype) * dtype.itemsize
        wide = unet.model_channels, attended_channels(unet)
        return cls(frames, height, width, dtype, False, *wide, casts, 12 * trained, factor)

    @property
    def bytes(self) -> int:
        """Estimated, at the peak."""
        keys = KEY_BYTES * max(0, self.frames - FRAMES)
        each = UNET_BYTES * self.unet_width + (BLOCK_BYTES + keys) * self.block_width
        if self.checkpointing:  # keys of one block at a time, and their gradients
            each = (self.checkpointed_bytes + 2 * keys) * self.unet_width
        pixels = self.frames * self.height * self.width * self.dtype.itemsize
        casts = 0 if self.checkpointing else self.casts  # recomputed blocks convert theirs again
        return int(pixels * each) + casts + self.optimiser

    def choose(self, choice: str, device: torch.device) -> "Demand":
        """With checkpointing as chosen; for "auto" where a step would not fit well in what is free now.

        Raises EI2Error when it will not fit at all.
        """
        free = mm.get_free_memory(device)
        chosen = replace(self, checkpointing=self.bytes > ROOMY * free if choice == "auto" else choice == "on")
        if chosen.bytes > MARGIN * free:
            raise EI2Error(
                f"{chosen} need about {gib(chosen.bytes)} GiB for a step, and {gib(free)} GiB are free. "
                f"To fit: {chosen.advice(free)}."
            )
        return chosen

    def advice(self, free: int) -> str:
        """What to change so that it fits in so many bytes, with numbers."""
        lean = replace(self, checkpointing=True)
        tips = [] if self.checkpointing else [f"set gradient_checkpointing to on ({gib(lean.bytes)} GiB)"]
        if self.dtype == torch.float32:
            half = replace(self, dtype=torch.bfloat16)
            tips.append(f"choose precision bf16 ({gib(half.bytes)} GiB)")
        fewer, smaller = self.fewer_frames(free), self.smaller_frames(free)
        tips += [f"set window to {fewer} frames"] if fewer else []
        tips += [f"make the frames {smaller}"] if smaller else []
        return ", or ".join(tips) or "close other programs that use the memory"

    def fewer_frames(self, free: int) -> int | None:
        """That fit in so many bytes."""
        return next((n for n in range(self.frames - 1, 0, -1) if replace(self, frames=n).bytes <= free), None)

    def smaller_frames(self, free: int) -> str | None:
        """Their size in pixels that fits in so many bytes."""
        sizes = ((self.height * k // 16, self.width * k // 16) for k in range(15, 0, -1))
        smaller = (replace(self, height=h, width=w) for h, w in sizes if min(h, w))
        return next((demand.size for demand in smaller if demand.bytes <= free), None)

    def __str__(self) -> str:
        how = "checkpointing on" if self.checkpointing else "checkpointing off"
        return f"{self.frames} frames of {self.size}, {dtype_name(self.dtype)}, gradient {how},"

    @property
    def size(self) -> str:
        """In pixels."""
        return f"{self.width * self.factor}x{self.height * self.factor}"


def gib(size: float) -> str:
    return f"{size / 2**30:.1f}"


def announce(demand: Demand, steps: int, forward_seconds: float, device: torch.device) -> str:
    """One line for the user, before the first step. forward_seconds: of one pass over the clip."""
    seconds = steps * forward_seconds * STEP_PASSES[demand.checkpointing]
    return (
        f"{demand} need about {gib(demand.bytes)} of {gib(mm.get_free_memory(device))} GiB a step, and "
        f"{duration(seconds)} for {steps} steps, both give or take a third"
    )


def out_of_memory(demand: Demand, device: torch.device) -> str:
    """What to change after the estimate was wrong, or another program took the memory."""
    free = min(mm.get_free_memory(device), int(demand.bytes / MARGIN))
    return f"Out of memory while tuning {demand} about {gib(demand.bytes)} GiB a step. To fit: {demand.advice(free)}."


def duration(seconds: float) -> str:
    """In words for people: 12 s, 3 min, 2.5 h."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
