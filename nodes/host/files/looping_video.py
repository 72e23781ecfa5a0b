"""Frames as an mp4 that plays long enough to be seen, and a picture, below ComfyUI's output or temp folder."""

import math
import os
import re
from fractions import Fraction

import folder_paths
import torch
from comfy.cli_args import args
from comfy_api.latest import InputImpl, Types, io, ui

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files import names
from ....ei2_modules.files.safetensors_file import advice

SECONDS = 2.0  # that a video plays at least
UNNAMED = "EI2_compare"


def prefix_fault(prefix: str) -> str | None:
    """Why it cannot be the beginning of a file's name, folders before it allowed, or None. "" is the temp folder."""
    parts = re.split(r"[/\\]", re.sub(r"%[^%]+%", "x", prefix))  # %date:yyyy% is filled in by the host
    for part in parts if prefix.strip() else ():
        if fault := names.name_fault(part):
            return (
                f"filename_prefix is {prefix!r}, and its part {part!r} cannot be a name: {fault}. Give a name such as "
                "ei2/compare, or nothing."
            )
    return None


def save_video(images: torch.Tensor, prefix: str, fps: float, node: type[io.ComfyNode]) -> ui.SavedResult:
    """images: (n, h, w, 3) in 0..1, h and w even; all of them repeated until the video plays SECONDS.

    prefix: as Save Video's; "": into the temp folder. Raises EI2Error where that cannot be written.
    """
    kind, root, prefix = _place(prefix)
    n, height, width, _ = images.shape
    repeated = images.repeat(max(1, math.ceil(SECONDS * fps / n)), 1, 1, 1)
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=repeated, frame_rate=Fraction(fps)))
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(prefix, root, width, height)
        file = f"{name}_{counter:05}_.mp4"
        video.save_to(os.path.join(folder, file), metadata=_metadata(node))
    except OSError as error:
        raise EI2Error(f"The video {prefix} cannot be written below {root}: {error}. {advice(error)}") from error
    return ui.SavedResult(file, subfolder, kind)


def save_sheet(image: torch.Tensor, prefix: str, node: type[io.ComfyNode]) -> ui.SavedResult:
    """image: (1, h, w, 3) in 0..1, as a PNG; prefix as above."""
    kind, root, prefix = _place(prefix)
    try:
        return ui.ImageSaveHelper.save_images(image, f"{prefix}_sheet", kind, node)[0]
    except OSError as error:
        raise EI2Error(f"The picture {prefix} cannot be written below {root}: {error}. {advice(error)}") from error


def _place(prefix: str) -> tuple[io.FolderType, str, str]:
    """Which of the host's folders, where that is, and the name in it."""
    if prefix.strip():
        return io.FolderType.output, folder_paths.get_output_directory(), names.composed(prefix)
    return io.FolderType.temp, folder_paths.get_temp_directory(), UNNAMED


def _metadata(node: type[io.ComfyNode]) -> dict | None:
    """The workflow, as Save Video keeps it, so that dropping the file on the editor opens it."""
    if args.disable_metadata or not node.hidden:
        return None
    prompt = {"prompt": node.hidden.prompt} if node.hidden.prompt else {}
    return (node.hidden.extra_pnginfo or {}) | prompt
