"""Where the states of tunings lie: output/ei2/states, the newest few of them."""

import textwrap
from pathlib import Path

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files import safetensors_file
from ....ei2_modules.files.names import composed
from ....ei2_modules.tuning import state as tuning_state
from ....ei2_modules.tuning.state import RunKey
from ..files import weights_folder
from .folder import StatesFolder, passed_over_when_damaged

LETTERS = 40  # of a caption; each takes four bytes at most, of 255 that file systems hold
KEEP = 4  # one is about three times the size of the tuned weights


def directory() -> Path:
    return weights_folder.directory("output/ei2") / "states"


FOLDER = StatesFolder(directory, KEEP, "tuning")


def list_files() -> list[str]:
    """Names, newest first."""
    return [path.name for path in FOLDER.newest_first()]


def missing(name: str) -> str | None:
    """Why a name is not a state in the folder, or None."""
    if name in list_files():
        return None
    return f"{name!r} is not in output/ei2/states. Press R to refresh the list and choose again."


def new_path(caption: str | None, steps: int) -> Path:
    """For a tuning of so many steps that begins now; the name is what the dropdown shows."""
    return FOLDER.new_path(f"{_short(caption or '') or 'tuning'}{_of(steps)}")


def is_for(path: Path, steps: int) -> bool:
    """Whether its name may stay for a tuning of so many steps: older names say none."""
    return _of(steps) in path.name or " steps, " not in path.name


def _of(steps: int) -> str:
    return f", {steps} steps, "


def _short(caption: str) -> str:
    """So much of it as a list can show, of letters that every system's file names hold."""
    words = "".join(c if c.isalnum() else " " for c in composed(caption)).split()
    return textwrap.shorten(" ".join(words), LETTERS, placeholder="")


def chosen(name: str, key: RunKey, steps: int) -> tuple[Path, int]:
    """The state of this name, and its steps; raises EI2Error when it does not belong to this tuning."""
    fault = missing(name)
    if fault:
        raise EI2Error(fault)
    theirs, done = tuning_state.read(directory() / name)
    unlike = key.differences(theirs)
    if unlike:
        raise EI2Error(
            f"{name} is the state of another tuning; these differ: {', '.join(unlike)}. Set them as they were, choose "
            "another file, or set resume to 'new run'."
        )
    if done > steps:
        raise EI2Error(f"{name} is already at step {done}, beyond the {steps} asked for. Ask for more steps.")
    return directory() / name, done


def matching(key: RunKey, steps: int) -> tuple[Path, int] | None:
    """The state of this very tuning that is furthest, at most `steps`, and its steps. Damaged files are left out."""

    def done_of(path: Path) -> int | None:
        theirs, done = tuning_state.read(path)
        return done if key.comparable(theirs) and done <= steps and not key.differences(theirs) else None

    for path, done in FOLDER.furthest_first(done_of):
        with passed_over_when_damaged():
            safetensors_file.load(path)  # whole, by its checksum
            return path, done
    return None
