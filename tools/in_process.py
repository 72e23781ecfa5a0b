"""Imports the host and this pack into one Python process, for tests and benchmarks without a server.

The pack is loaded the way ComfyUI does it, as a package named after its folder: with its root on sys.path,
its `nodes` would meet the host's module of that name.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACK = "ei2_pack"


def load_host(cpu: bool | None = None) -> None:
    """Import ComfyUI from COMFYUI_PATH; on the CPU when asked to, or when there is no GPU. Once: later calls do
    nothing, so that a test may import a program."""
    if "comfy.cli_args" in sys.modules:
        return
    import torch

    cpu = not torch.cuda.is_available() if cpu is None else cpu
    arguments = ["--cpu", "--use-pytorch-cross-attention"] if cpu else []
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    argv, sys.argv = sys.argv, ["comfyui", *arguments]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = argv


def load_pack() -> None:
    """Import the pack under the name PACK, once."""
    if PACK in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])


def pack(module: str):
    """A module of the loaded pack: pack("nodes.host.inflating.inflate")."""
    return importlib.import_module(f"{PACK}.{module}")
