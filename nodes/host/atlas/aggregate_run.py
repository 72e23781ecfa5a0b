"""Edited key frames to an edited atlas inside the host: checks, progress of the network, report."""

import comfy.model_management as mm
import torch.nn.functional as F
from torch import Tensor

from ....ei2_modules.atlas.aggregate import NETWORK, aggregated
from ....ei2_modules.atlas.atlas import CHANGED, Atlas
from ....ei2_modules.atlas.gates import layer_name
from ....ei2_modules.atlas.key_frames import KeyFrames
from ....ei2_modules.atlas.refine import EPOCHS
from ....ei2_modules.errors import EI2Error
from ..progress import Progress, show_text
from .pictures import picture_of


def aggregate(
    atlas: Atlas, keys: KeyFrames, edited: Tensor, clip: Tensor, method: str
) -> tuple[Atlas, Tensor, Tensor, str]:
    """(atlas, IMAGE of the layer's picture, MASK of what is edited, report). edited (k, 3, h, w), clip (n, 3, h, w)."""
    frames, losses = clip[list(keys.frames)], []
    progress = Progress(None, EPOCHS if method == NETWORK else 1)

    def after_step(done: int, total: int, loss: float) -> None:
        losses.append(loss)
        progress.advance_to(done)

    edited = checked_edit(edited, frames)
    layer, known = aggregated(atlas, keys, edited, frames, method, mm.get_torch_device(), after_step)
    observed = layer.observed.float().sum().clamp(min=1)
    share = (known * layer.observed).sum() / observed
    lines = [
        f"{len(keys.frames)} key frames show {share:.0%} of what any frame shows of the "
        f"{layer_name(atlas, keys.layer)}; {layer.edited.mean():.0%} of its picture is edited, by {method}"
    ]
    lines += [f"L1 of the key frames {losses[0]:.5f} before and {losses[-1]:.5f} after the network"] if losses else []
    if not ((edited - frames).abs() > CHANGED).any():
        lines.append("Nothing is edited: the key frames are the clip's own. Wire the edited ones.")
    show_text("\n".join(lines))
    found = atlas.with_layer(keys.layer, layer)
    return found, picture_of(found, keys.layer), layer.edited[None], "\n".join(lines)


def checked_edit(edited: Tensor, frames: Tensor) -> Tensor:
    """Edited key frames, (k, 3, h, w), in the size of the clip's own. Raises EI2Error."""
    (h, w), (height, width) = frames.shape[-2:], edited.shape[-2:]
    if len(edited) != len(frames):
        raise EI2Error(f"Got {len(edited)} edited pictures for {len(frames)} key frames. Give one for each, in order.")
    if abs(width * h - height * w) > max(h, w, height, width):
        raise EI2Error(f"The edited key frames are {width}x{height}, the clip is {w}x{h}. Give them its shape.")
    if bad := (~edited.isfinite().flatten(1).all(1)).sum().item():
        raise EI2Error(
            f"{bad} of {len(edited)} edited key frames hold values that are not finite. Start ComfyUI with --fp32-vae "
            "and decode them again."
        )
    if (height, width) == (h, w):
        return edited
    return F.interpolate(edited, (h, w), mode="bilinear", align_corners=False, antialias=True)
