"""IMAGE and MASK of the host as frames of the method, and back."""

from torch import Tensor

from ...ei2_modules.errors import EI2Error
from .progress import warn

ROUNDED = 0.01  # what resizing a mask may add beyond 0 and 1


def frames_of(images: Tensor, name: str) -> Tensor:
    """IMAGE (n, h, w, c) -> (n, 3, h, w) in 0..1; alpha is left out, grey becomes RGB. Raises EI2Error."""
    if not isinstance(images, Tensor) or images.ndim != 4 or images.shape[-1] not in (1, 3, 4):
        shape = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise EI2Error(f"{name} is {shape}: frames as (n, height, width, 3) are needed. Wire an IMAGE.")
    if not len(images):
        raise EI2Error(f"{name} holds no frame. Give 1 at least.")
    frames = images.float().movedim(-1, 1)[:, :3]
    return frames.expand(-1, 3, -1, -1).clamp(0, 1) if frames.shape[1] == 1 else frames.clamp(0, 1)


def image_of(frames: Tensor) -> Tensor:
    """(n, 3, h, w) -> IMAGE."""
    return frames.movedim(1, -1).contiguous()


def masks_of(masks: Tensor, name: str) -> Tensor:
    """MASK (h, w) or (n, h, w) -> (n, h, w). Raises EI2Error."""
    if not isinstance(masks, Tensor) or masks.ndim not in (2, 3, 4) or (masks.ndim == 4 and masks.shape[1] != 1):
        shape = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
        raise EI2Error(f"{name} is {shape}: (height, width), or one a frame, is needed. Wire a MASK.")
    return masks.float().reshape(-1, *masks.shape[-2:])


def shares_of(mask: Tensor, name: str) -> Tensor:
    """MASK of any type -> fp32 in 0..1; what lies beyond is cut off, and said. Raises EI2Error if it is not finite."""
    mask = mask.float()
    if not mask.numel() or not mask.isfinite().all():
        raise EI2Error(
            f"{name} of shape {tuple(mask.shape)} is empty or holds values that are not finite. Draw it again, or take "
            "off the node that made them: 0 stays, 1 may change."
        )
    low, high = float(mask.min()), float(mask.max())
    if low < -ROUNDED or high > 1 + ROUNDED:
        warn(f"{name} has values from {low:g} to {high:g}: below 0 is taken for 0 (stays), above 1 for 1 (may change).")
    return mask.clamp(0, 1)
