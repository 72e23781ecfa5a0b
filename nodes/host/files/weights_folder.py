"""Where tuned weights lie: models/ei2 and output/ei2, both listed by Load EI² Weights."""

import json
import logging
from pathlib import Path

import folder_paths

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files import names
from ....ei2_modules.files.safetensors_file import advice
from ....ei2_modules.inflation import weights as tuned_weights
from ....ei2_modules.inflation.weights import EI2Weights

FOLDER = "ei2"
PLACES = ("output/ei2", "models/ei2")


def register_folders() -> None:
    """Tell the host of the two folders, as it does itself for loras and output/loras."""
    for place in reversed(PLACES):
        folder_paths.add_model_folder_path(FOLDER, str(directory(place)), is_default=place == "models/ei2")
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {".safetensors"})


def directory(place: str) -> Path:
    """The folder behind a combo entry."""
    root = folder_paths.models_dir if place.startswith("models") else folder_paths.get_output_directory()
    return Path(root) / FOLDER


def name_fault(name: str) -> str | None:
    """Why a file name is refused, or None."""
    fault = names.name_fault(name)
    return fault and f"{name!r} cannot be a file name: {fault}. Choose the folder with the folder input."


def list_files() -> list[str]:
    """Names for the Load node."""
    return folder_paths.get_filename_list(FOLDER)


def missing(name: str) -> str | None:
    """Why a name is not a file in the folders, or None."""
    if ".." not in Path(name).parts and folder_paths.get_full_path(FOLDER, name) is not None:
        return None
    return f"{name!r} is in neither {' nor '.join(PLACES)}. Press R to refresh the list and choose again."


def find(name: str) -> Path:
    """Full path of a listed name; refuses anything outside the folders."""
    fault = missing(name)
    if fault:
        raise EI2Error(fault)
    return Path(folder_paths.get_full_path(FOLDER, name))


def save(weights: EI2Weights, name: str, place: str) -> Path:
    """Write under a fresh number, never over an older file: my_clip_00001_.safetensors, and the run card beside it."""
    fault = name_fault(name)
    if fault or place not in PLACES:
        raise EI2Error(fault or f"{place!r} is not one of {', '.join(PLACES)}.")
    if not weights.tensors.learnt():
        raise EI2Error(f"These weights are not saved: {nothing_learnt(weights)}")
    target, name = directory(place), names.composed(name)
    try:
        target.mkdir(parents=True, exist_ok=True)
        folder, filename, counter, _, _ = folder_paths.get_save_image_path(name, str(target))
    except OSError as error:
        raise EI2Error(f"{target} cannot be written to: {error}. {advice(error)}") from error
    # From the host's number on: it numbers what is spelt the same, and macOS takes Clip and clip for one file.
    path = names.fresh(Path(folder), filename, ".safetensors", counter)
    tuned_weights.save(path, weights)
    _write_card(path.with_suffix(".json"), weights)
    return path


def load(name: str) -> EI2Weights:
    """A listed file; raises WeightsError for one that is not whole, and warns of one without what was learnt."""
    weights = tuned_weights.load(find(name))
    if not weights.tensors.learnt():
        logging.warning("EI²: %s holds nothing that was learnt: %s", name, nothing_learnt(weights))
    return weights


def nothing_learnt(weights: EI2Weights) -> str:
    """Why, as a tuning on a GGUF file did before it was refused, and what to do."""
    return (
        f"all {len(weights.tensors.queries)} query differences are exactly 0. The model they were tuned on kept its "
        "weights in a form that cannot be trained from. Load the checkpoint in fp16, bf16 or fp32 and tune again."
    )


def _write_card(path: Path, weights: EI2Weights) -> None:
    """A fault is logged, not raised: everything it says is in the header of the weights too."""
    card = json.dumps(weights.header.card(), indent=1, ensure_ascii=False)
    try:
        path.write_text(card + "\n", encoding="utf-8")
    except OSError as error:
        logging.warning("EI²: the run card %s could not be written: %s", path, error)
