"""What a fit is given, checked before any work."""

import hashlib

import torch
from torch import Tensor

from ..errors import EI2Error

LEAST_SIDE = 32  # px
EMPTY_SHARE = 0.2  # of the frames whose mask may be empty: the layer is not there
NEARLY_ALL = 0.98  # of the picture that a mask may cover


def checked_frames(frames: Tensor, most: int) -> Tensor:
    """frames (n, 3, h, w), n of 2 to `most`, finite and large enough. Raises EI2Error."""
    n, channels, h, w = frames.shape
    if n < 2:
        raise EI2Error(f"{n} frame: an atlas is what frames have in common. Give 2 at least, 8 or more to edit with.")
    if n > most:
        raise EI2Error(
            f"{n} frames; the limit is {most}. Split the clip, or raise max_frames (time and memory grow with it)."
        )
    if channels != 3 or min(h, w) < LEAST_SIDE:
        raise EI2Error(f"Frames are {w}x{h} with {channels} channels: RGB of {LEAST_SIDE} px at least is needed.")
    bad = [t for t, frame in enumerate(frames) if not frame.isfinite().all()]
    if bad:
        raise EI2Error(f"The images hold values that are not finite in {listed(bad)}. Decode them again.")
    return frames


def fitted_mask(mask: Tensor, frames: Tensor, name: str = "mask") -> Tensor:
    """A mask (1 or n, h, w) for frames (n, 3, h, w), as (1 or n, 1, h, w) of the same size. Raises EI2Error.

    Another size is taken if its sides have the same ratio: masks are often drawn on a smaller clip.
    """
    n, _, h, w = frames.shape
    if len(mask) not in (1, n):
        raise EI2Error(f"Got {len(mask)} masks in {name} for {n} frames. Give one per frame, or one for all.")
    if abs(mask.shape[-1] * h - mask.shape[-2] * w) > max(h, w):
        raise EI2Error(f"{name} is {mask.shape[-1]}x{mask.shape[-2]}, the images are {w}x{h}. Give it their shape.")
    mask = mask.float().nan_to_num(0).clamp(0, 1)[:, None]
    if tuple(mask.shape[-2:]) != (h, w):
        mask = torch.nn.functional.interpolate(mask, (h, w), mode="bilinear", align_corners=False)
    return mask


def checked_mask(mask: Tensor, frames: Tensor, name: str = "mask") -> Tensor:
    """As `fitted_mask`, one a frame, of a layer: it is seen in most, and leaves something for the background."""
    mask = fitted_mask(mask, frames, name)
    empty = [t for t, one in enumerate(mask) if not (one > 0.5).any()]
    if len(empty) > EMPTY_SHARE * len(mask):
        raise EI2Error(
            f"{name} is empty in {len(empty)} of {len(mask)}: {listed(empty)}. Draw or track the object there, or "
            "leave the mask out: without one the whole clip is a single layer."
        )
    share = (mask > 0.5).float().mean().item()
    if share > NEARLY_ALL:
        raise EI2Error(f"{name} covers {share:.0%} of the picture: nothing is left for the background. Leave it out.")
    return mask.expand(len(frames), -1, -1, -1)


def checked_clip(frames: Tensor, shape: tuple[int, int, int], clip: str) -> Tensor:
    """The frames (n, 3, h, w), if they are those of an atlas: its (n, h, w) and fingerprint. Raises EI2Error."""
    n, _, h, w = frames.shape
    if (n, h, w) != tuple(shape):
        count, height, width = shape
        raise EI2Error(
            f"This atlas was fitted to another clip ({count} frames of {width}x{height}); got {n} frames of {w}x{h}. "
            "Wire the images it was fitted to."
        )
    if clip and fingerprint(frames) != clip:
        raise EI2Error(
            f"This atlas was fitted to another clip: the {n} frames of {w}x{h} differ from it in their pixels. Wire "
            "the images it was fitted to, scaled in the same way."
        )
    return frames


def listed(frames: list[int]) -> str:
    """[2, 6, 7, 8] -> "frames 2, 6-8, counted from 0", as the inputs of the nodes count."""
    runs = []
    for t in frames:
        if runs and t == runs[-1][1] + 1:
            runs[-1][1] = t
        else:
            runs.append([t, t])
    words = ", ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)
    return f"{'frame' if len(frames) == 1 else 'frames'} {words}, counted from 0"


def fingerprint(frames: Tensor) -> str:
    """Of a clip (n, 3, h, w): its shape, and its pixels as bytes. The same for frames that were saved as PNG."""
    digest = hashlib.sha256(repr(tuple(frames.shape)).encode())
    for frame in frames:
        digest.update((frame.clamp(0, 1) * 255).round().byte().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]
