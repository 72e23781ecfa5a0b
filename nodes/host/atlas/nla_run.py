"""Checkpoints of Layered Neural Atlases: where they lie, and one of them baked inside the host."""

import time
from dataclasses import replace
from pathlib import Path

import comfy.model_management as mm
import folder_paths
from torch import Tensor

from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.atlas.checks import checked_frames, fingerprint
from ....ei2_modules.atlas.gates import Gate, of_picture, of_stretch, reconstruction
from ....ei2_modules.atlas.nla import CHUNK
from ....ei2_modules.atlas.nla_bake import Baked, baked
from ....ei2_modules.atlas.nla_file import CHECKPOINT, CONFIG, Trained, load
from ....ei2_modules.errors import EI2Error
from ..images import frames_of
from ..progress import Progress
from .report import told

FOLDER = "layered_atlases"
FLOATS = 1024  # that a point takes while it is evaluated: two layers of 256 numbers with their inputs

_ANOTHER = (
    "Wire the clip that the networks were trained on: all of its frames in order, no more and no fewer, scaled as they "
    "were. If it is that clip, the training was stopped early."
)


def directory() -> Path:
    return Path(folder_paths.models_dir) / FOLDER


def list_checkpoints() -> list[str]:
    """Folders there that hold both files, by name."""
    found = (path.parent for path in directory().glob(f"*/{CHECKPOINT}"))
    return sorted(path.name for path in found if all((path / name).is_file() for name in (CHECKPOINT, CONFIG)))


def missing(name: str | None) -> str | None:
    """Why a name is none of the listed, or None."""
    names = list_checkpoints()
    if name in names:
        return None
    if not names:
        return (
            f"There is no checkpoint in models/{FOLDER}. Make a folder there for each clip and put {CHECKPOINT} and "
            f"{CONFIG} of its training into it; then press R."
        )
    return f"{name!r} is not in models/{FOLDER} with {CHECKPOINT} and {CONFIG}. Press R and choose again."


def find(name: str | None) -> Path:
    """The folder of a listed name; nothing else is opened. Raises EI2Error."""
    fault = missing(name)
    if fault:
        raise EI2Error(fault)
    return directory() / name


def stamp(name: str) -> str:
    """Changes with the files' content; not its hash."""
    stats = ((find(name) / part).stat() for part in (CHECKPOINT, CONFIG))
    return " ".join(f"{stat.st_mtime_ns}:{stat.st_size}" for stat in stats)


def imported(images: Tensor, name: str) -> tuple[Atlas, str]:
    """(atlas, report) of a listed checkpoint and the IMAGE that it was trained on. Raises EI2Error before any work."""
    began, trained = time.monotonic(), load(find(name))
    frames = frames_of(images, "images").cpu()
    n, _, *size = frames.shape
    trained.fits(n, tuple(size))
    found = _baked(trained, checked_frames(frames, n))
    atlas = replace(found.atlas, clip=fingerprint(frames))
    gates = _gates(replace(found, atlas=atlas), frames)
    about = f"{_about(trained, n)}, imported from {name} in {time.monotonic() - began:.0f} s"
    return atlas, told(about, gates, psnr=gates[0].value)


def _baked(trained: Trained, frames: Tensor) -> Baked:
    device = mm.get_torch_device()
    mm.free_memory(4 * FLOATS * CHUNK, device)
    progress = Progress(None, len(frames) + 2)

    def tick(done: int) -> None:
        if done:
            progress.advance(passes=done)
        mm.throw_exception_if_processing_interrupted()

    try:
        return baked(trained.networks.to(device), trained.size, len(frames), tick)
    except mm.OOM_EXCEPTION as error:
        raise EI2Error(
            f"Not enough memory on {device} to evaluate the networks, {CHUNK} pixels at once. Close what else uses it, "
            "or start ComfyUI with --cpu."
        ) from error


def _gates(found: Baked, frames: Tensor) -> list[Gate]:
    """Of what is measured without flow."""
    atlas = found.atlas
    stretch = [of_stretch(atlas, k) for k in range(len(atlas.layers))]
    return [replace(reconstruction(atlas, frames), advice=_ANOTHER), *found.gates(), *stretch, of_picture(atlas)]


def _about(trained: Trained, n: int) -> str:
    (h, w), networks = trained.size, trained.networks
    named = {"foreground": networks.foreground, "background": networks.background}
    named |= {"alpha": networks.alpha, "atlas": networks.atlas}
    shapes = ", ".join(f"{name} {len(net.weights)}x{net.width}" for name, net in named.items())
    return f"{n} frames of {w}x{h}, networks {shapes}"
