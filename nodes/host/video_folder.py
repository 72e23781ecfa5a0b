"""Video files where ComfyUI's upload puts them, listed and named as its Load Video does, and clips out of them."""

import os
from pathlib import Path

import comfy.model_management as mm
import folder_paths
import torch
from comfy.sd import VAE

from ...ei2_modules.video.clip import Clip, Wanted, load
from .progress import Progress, show_text

MULTIPLE = 8  # pixels a latent, of Stable Diffusion's VAEs


def list_files() -> list[str]:
    """Videos in the input folder, by name."""
    folder = folder_paths.get_input_directory()
    files = [name for name in os.listdir(folder) if os.path.isfile(os.path.join(folder, name))]
    return sorted(folder_paths.filter_files_content_types(files, ["video"]))


def missing(name: str) -> str | None:
    """Why a name, with or without [output] behind it, is no file in ComfyUI's folders; or None."""
    inside = not Path(name).is_absolute() and ".." not in Path(name).parts
    if inside and folder_paths.exists_annotated_filepath(name) and _path(name).is_file():
        return None
    return f"{name!r} is not in the input folder. Upload it with the node's button, or press R and choose again."


def fingerprint(name: str) -> str:
    """Changes with the file's content; not the content's hash, which would read all of it."""
    found = _path(name).stat()
    return f"{found.st_mtime_ns} {found.st_size}"


def load_clip(name: str, wanted: Wanted) -> Clip:
    """The clip, with the host's progress bar; what was done is shown in the node. The user's cancel passes."""
    progress = Progress(None, wanted.frames)
    free = mm.get_free_memory(torch.device("cpu"))
    clip = load(_path(name), wanted, free, mm.throw_exception_if_processing_interrupted, progress.advance)
    show_text(clip.report)
    return clip


def multiple_of(vae: VAE | None) -> int:
    """What the sides of a clip must be multiples of, to come back from a VAE at their size."""
    return MULTIPLE if vae is None else int(vae.spacial_compression_encode())


def _path(name: str) -> Path:
    return Path(folder_paths.get_annotated_filepath(name))
