"""The method is tested without ComfyUI: only `ei2_modules` is importable here, as a top-level package."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for folder in (ROOT, Path(__file__).parent):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import torch  # noqa: E402

torch.set_num_threads(1)  # these tensors are tiny: more threads only wait for each other
