"""Where atlases lie, and what a stopped edit of key frames leaves: output/ei2_atlas."""

from pathlib import Path

import folder_paths
from torch import Tensor

from ....ei2_modules.atlas import file
from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files import names
from ....ei2_modules.files.safetensors_file import advice
from ..progress import to_pil

FOLDER = "ei2_atlas"
SUFFIX = ".safetensors"


def directory() -> Path:
    return Path(folder_paths.get_output_directory()) / FOLDER


def list_files() -> list[str]:
    """Names for the Load node, as they lie there now."""
    return sorted(path.name for path in directory().glob(f"*{SUFFIX}"))


def name_fault(name: str) -> str | None:
    """Why a file name is refused, or None."""
    fault = names.name_fault(name)
    return fault and f"{name!r} cannot be a file name: {fault}."


def missing(name: str) -> str | None:
    """Why a name is not a file there, or None."""
    if Path(name).name == name and (directory() / name).is_file():
        return None
    return f"{name!r} is not in output/{FOLDER}. Press R to refresh the list and choose again."


def find(name: str) -> Path:
    """Full path of a listed name; refuses anything outside the folder."""
    fault = missing(name)
    if fault:
        raise EI2Error(fault)
    return directory() / name


def save(atlas: Atlas, name: str) -> Path:
    """Under a fresh number, never over an older file: my_clip_00001_.safetensors."""
    fault = name_fault(name)
    if fault:
        raise EI2Error(fault)
    path = _fresh(names.composed(name), SUFFIX)
    file.save(path, atlas)
    return path


def _fresh(name: str, suffix: str) -> Path:
    folder = directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return names.fresh(folder, name, suffix)
    except OSError as error:
        raise EI2Error(f"{folder} cannot be written to: {error}. {advice(error)}") from error


def save_picture(frame: Tensor, name: str) -> str:
    """A frame (3, h, w) in 0..1 as a PNG under a fresh number; gives the file's name."""
    path = _fresh(name, ".png")
    try:
        to_pil(frame.movedim(0, -1)).save(path)
    except OSError as error:
        raise EI2Error(f"{path.name} cannot be written: {error}. {advice(error)}") from error
    return path.name


def load(name: str) -> Atlas:
    """A listed file; raises WeightsError for one that is not whole."""
    return file.load(find(name))
