"""Ways of estimating optical flow: what a machine has of them, and which is taken.

RAFT (Teed and Deng 2020) through torchvision, with weights the user puts into models/optical_flow, never downloaded;
Farneback's (2003) where OpenCV is installed; Lucas and Kanade's of ei2_modules always.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path

import comfy.model_management as mm
import comfy.utils
import folder_paths
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...ei2_modules.errors import EI2Error, require
from ...ei2_modules.motion.flow import Estimate, Flow, flow_of
from ...ei2_modules.motion.optical_flow import estimate_flow

OnPair = Callable[[int, Tensor], None]
AUTO, RAFT, FARNEBACK, LUCAS_KANADE = METHODS = ("auto", "RAFT", "Farneback", "Lucas-Kanade")
FOLDER = "optical_flow"
SUFFIXES = {".pth", ".pt", ".safetensors"}
LEAST_RAFT = 128  # px: below, torchvision's RAFT gives NaN
UPDATES = 20  # of RAFT's recurrent unit, as Layered Neural Atlases takes
WIDTHS = {32: "raft_small", 64: "raft_large"}  # channels of the first convolution
KEY = "feature_encoder.convnormrelu.0.weight"


def register_folder() -> None:
    """models/optical_flow; where the host knows the folder already, nothing changes."""
    folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    paths, suffixes = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, set(suffixes) | SUFFIXES)


def estimator(method: str, size: tuple[int, int]) -> tuple[Estimate, str]:
    """(the estimate, its name) for frames (h, w). Raises EI2Error with what is missing for a method asked for."""
    require("method", method, METHODS)
    method = _best(size) if method == AUTO else method
    return {RAFT: _raft, FARNEBACK: _farneback, LUCAS_KANADE: _lucas_kanade}[method](size), method


def estimated(frames: Tensor, method: str = AUTO, even_light: bool = False, on_pair: OnPair = lambda *_: None) -> Flow:
    """The flow of a clip (n, 3, h, w) by a method; even_light, on_pair and errors as of `flow_of` and `estimator`."""
    estimate, name = estimator(method, tuple(frames.shape[-2:]))
    return flow_of(frames, estimate, name, even_light, on_pair)


def _best(size: tuple[int, int]) -> str:
    return RAFT if raft_file() is not None and min(size) >= LEAST_RAFT else LUCAS_KANADE


def what_auto_is(size: tuple[int, int]) -> str:
    """The method, and a hash of the weights that it takes: the same for estimates that are the same."""
    method = _best(size)
    return f"{method} {hashlib.sha256(raft_file().read_bytes()).hexdigest()}" if method == RAFT else method


def raft_file() -> Path | None:
    """RAFT's weights, the first by name; None where there are none."""
    register_folder()
    names = [name for name in folder_paths.get_filename_list(FOLDER) if "raft" in name.lower()]
    path = folder_paths.get_full_path(FOLDER, names[0]) if names else None
    return path and Path(path)  # None too for a name that the host remembers of a file that is gone


def _lucas_kanade(size: tuple[int, int]) -> Estimate:
    return _on_device(estimate_flow)


def _on_device(estimate: Callable) -> Estimate:
    device = mm.get_torch_device()
    return lambda first, second: estimate(first.to(device), second.to(device)).cpu()


def _farneback(size: tuple[int, int]) -> Estimate:
    try:
        import cv2
    except ImportError as error:
        raise EI2Error(
            "Farneback needs OpenCV, which is not installed here (the package opencv-python-headless). Install it into "
            f"ComfyUI's Python, or choose {LUCAS_KANADE}."
        ) from error

    def grey(frame: Tensor) -> np.ndarray:
        return cv2.cvtColor((frame.clamp(0, 1) * 255).byte().permute(1, 2, 0).cpu().numpy(), cv2.COLOR_RGB2GRAY)

    def one(first: Tensor, second: Tensor) -> Tensor:
        found = cv2.calcOpticalFlowFarneback(grey(first), grey(second), None, 0.5, 4, 15, 3, 5, 1.2, 0)
        return torch.from_numpy(found).permute(2, 0, 1)

    return lambda first, second: torch.stack([one(a, b) for a, b in zip(first, second, strict=True)])


def _raft(size: tuple[int, int]) -> Estimate:
    h, w = size
    if min(size) < LEAST_RAFT:
        raise EI2Error(f"RAFT needs {LEAST_RAFT} px at least, the frames are {w}x{h}. Resize them, or choose auto.")
    path = raft_file()
    if path is None:
        raise EI2Error(
            "RAFT's weights are not there. Put torchvision's raft_small_C_T_V2-01064c6d.pth, or "
            f"raft_large_C_T_SKHT_V2-ff5fadd5.pth, into {Path(folder_paths.models_dir) / FOLDER}, or choose auto."
        )
    return _on_device(_padded(_loaded(path)))


def _loaded(path: Path) -> torch.nn.Module:
    """RAFT with the weights of a file; which of its two sizes, the weights tell."""
    from torchvision.models import optical_flow

    try:
        weights = comfy.utils.load_torch_file(str(path), safe_load=True)
        build = getattr(optical_flow, WIDTHS[len(weights[KEY])])
        model = build(weights=None, progress=False)
        model.load_state_dict(weights)
    except Exception as error:
        raise EI2Error(
            f"{path.name} does not hold the weights of torchvision's RAFT ({type(error).__name__}: {error}). Put the "
            f"file as torchvision publishes it into {path.parent}."
        ) from error
    return model.requires_grad_(False).eval().to(mm.get_torch_device())


def _padded(model: torch.nn.Module) -> Callable:
    """Sides are padded to multiples of 8 by the border, and colours go from -1 to 1."""

    def estimate(first: Tensor, second: Tensor) -> Tensor:
        h, w = first.shape[-2:]
        pad = (0, -w % 8, 0, -h % 8)
        pair = (2 * F.pad(frames.float(), pad, mode="replicate") - 1 for frames in (first, second))
        with torch.no_grad():
            return model(*pair, num_flow_updates=UPDATES)[-1][..., :h, :w]

    return estimate
