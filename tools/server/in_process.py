"""The host and this pack in one Python process, for tests and benchmarks without a server.

`host` and `pack` give their modules and load them first if need be. The pack is loaded the way ComfyUI does it, as a
package named after its folder; so its `nodes` does not meet the host's module of that name.
"""

import importlib
import importlib.util
import os
import sys
from pathlib import Path

from .. import ROOT

PACK = "ei2_pack"


def load_host(cpu: bool | None = None) -> None:
    """Import ComfyUI from COMFYUI_PATH; on the CPU when asked to, or when there is no GPU. Once: later calls do
    nothing, so that a test may import a program. Attention is PyTorch's own, whatever else is installed."""
    if "comfy.cli_args" in sys.modules:
        return
    import torch

    cpu = not torch.cuda.is_available() if cpu is None else cpu
    arguments = ["--use-pytorch-cross-attention", *(["--cpu"] if cpu else [])]
    _find_host_first()
    argv, sys.argv = sys.argv, ["comfyui", *arguments]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = argv


def _find_host_first() -> None:
    """The host's path first, because `nodes` must be its own, and ours last. Our packages are imported before, and so
    are found from then on, whatever else has their names: the host has folders `tests` and `utils`, a fork `tools`."""
    for name in ("benchmarks", "ei2_modules", "tools"):
        importlib.import_module(name)
    others = [path for path in sys.path if Path(path).resolve() != ROOT]
    sys.path[:] = [os.environ["COMFYUI_PATH"], *others, str(ROOT)]


def load_pack() -> None:
    """Import the host, and then the pack."""
    load_host()
    _name_pack()


def _name_pack() -> None:
    """The pack under the name PACK, once; its parts are imported when they are asked for."""
    if PACK in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])


def host(module: str):
    """A module of ComfyUI: host("comfy.sample"), host("nodes")."""
    load_host()
    return importlib.import_module(module)


def pack(module: str):
    """A module of the pack: pack("nodes.host.inflating.inflate")."""
    load_pack()
    return pack_alone(module)


def pack_alone(module: str):
    """A module of the pack that imports nothing of the host: pack_alone("nodes.host.side_by_side")."""
    _name_pack()
    return importlib.import_module(f"{PACK}.{module}")
