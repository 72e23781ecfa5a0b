"""The latents that an inversion goes through, at every sigma: they keep the source outside a mask.

For a long clip they are large (855 MB for 256 frames of 512x512 in 50 steps), and they must be exact. Above IN_MEMORY
bytes they lie below ComfyUI's temporary folder, until the last LATENT that refers to them is gone.
"""

import logging
import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import folder_paths
from torch import Tensor

from ....ei2_modules.files.mapped import mapped

IN_MEMORY = 256 * 2**20


class Trajectory(Sequence):
    """Latents (n, c, h, w) in the model's scale: the clip's own first, the noise last."""

    def __init__(self, size: int):
        """size: bytes of all latents to come."""
        self.latents: list[Tensor] = []
        self.folder = _new_folder() if size > IN_MEMORY else None
        weakref.finalize(self, _forget, self.latents, self.folder)  # at the host's end too

    def append(self, latents: Tensor) -> None:
        """Where the disk takes no more, the rest is kept in main memory."""
        if self.folder is not None:
            try:
                latents = mapped(latents, self.folder / f"{len(self):03}.safetensors")
            except OSError as error:
                logging.warning("EI²: the inversion's latents stay in main memory: %s.", error)
        self.latents.append(latents)

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, i: int | slice) -> Tensor | list[Tensor]:
        return self.latents[i]

    def __deepcopy__(self, memo: dict) -> "Trajectory":
        return self  # it is written once; a copy would bring all of it into main memory

    def of(self, frames: Sequence[int]) -> Sequence[Tensor]:
        """The same of some frames of the clip."""
        return self if list(frames) == list(range(len(self[0]))) else _OfFrames(self, list(frames))


class _OfFrames(Sequence):
    """Cut where it is asked for: nothing is kept twice."""

    def __init__(self, trajectory: Trajectory, frames: list[int]):
        self.trajectory, self.frames = trajectory, frames

    def __len__(self) -> int:
        return len(self.trajectory)

    def __getitem__(self, i: int) -> Tensor:
        return self.trajectory[i][self.frames]


def _new_folder() -> Path | None:
    """Below the temporary folder, which the host empties when it starts and when it ends."""
    try:
        root = Path(folder_paths.get_temp_directory())
        root.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="ei2_inversion_", dir=root))
    except OSError as error:
        logging.warning("EI²: the inversion's latents stay in main memory: %s.", error)
        return None


def _forget(latents: list[Tensor], folder: Path | None) -> None:
    latents.clear()  # Windows deletes no file that is still mapped
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
