"""Where atlases lie: output/ei2_atlas."""

from itertools import count
from pathlib import Path

import folder_paths

from ....ei2_modules.atlas import file
from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files import names
from ....ei2_modules.files.safetensors_file import advice

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
    folder, name = directory(), names.composed(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        paths = (folder / f"{name}_{number:05}_{SUFFIX}" for number in count(1))
        path = next(path for path in paths if not path.exists())
    except OSError as error:
        raise EI2Error(f"{folder} cannot be written to: {error}. {advice(error)}") from error
    file.save(path, atlas)
    return path


def load(name: str) -> Atlas:
    """A listed file; raises WeightsError for one that is not whole."""
    return file.load(find(name))
