"""Which file may import which: the three rooms of the pack, read with `ast` alone."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
STDLIB = set(sys.stdlib_module_names)
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "comfyui_version", "folder_paths", "latent_preview"}

# room -> (rooms of the pack it may import, top-level names from outside it may import)
ROOMS = {
    "__init__.py": ({"nodes"}, set()),
    "nodes": ({"nodes/host", "ei2_modules"}, STDLIB),
    "nodes/extension.py": ({"nodes", "nodes/host", "ei2_modules"}, STDLIB),
    "nodes/host": (
        {"nodes/host", "ei2_modules"},
        STDLIB | HOST | {"torch", "numpy", "PIL", "psutil", "torchvision", "cv2"},
    ),
    "ei2_modules": ({"ei2_modules"}, STDLIB | {"torch", "einops", "safetensors", "numpy", "kornia", "av", "PIL"}),
}

# Inside a room arrows run downwards only: a folder or file uses its own folder and what stands below it.
FLOORS = {
    "ei2_modules": [
        ["tuning", "metrics", "demo", "atlas"],
        ["inflation", "motion"],
        ["config"],
        ["attention"],
        ["diffusion", "files", "video"],
        ["errors"],
        ["__init__"],
    ],
    "nodes/host": [
        ["null_text", "several_edits", "atlas"],
        ["resume"],
        ["tuning"],
        ["sampling"],
        ["control"],
        ["inflating", "video_folder", "comparison", "demo_controlnet", "graph_ahead", "images", "not_finite"],
        ["clip_embeddings", "conditioning", "latents", "progress", "plots", "files", "demo_model", "optical_flow"],
        ["api", "attempt", "controlnets", "precision", "prompt_graph", "side_by_side", "__init__"],
    ],
}

Sources = dict[str, str]  # path below the pack's root -> text


def pack_sources() -> Sources:
    files = [ROOT / "__init__.py", *ROOT.glob("nodes/**/*.py"), *ROOT.glob("ei2_modules/**/*.py")]
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


def imported(path: str, text: str) -> Iterator[str]:
    """Every module or name a file imports, anywhere in it; those of the pack begin with a dot: ".nodes.host.api"."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            if node.level:
                folders = PurePosixPath(path).parts[:-1]
                base = ["", *folders[: len(folders) - node.level + 1], *base]
            yield from (".".join([*base, alias.name]) for alias in node.names)


def inside(path: str, sources: Sources) -> set[str]:
    """Files of the pack that this file imports."""
    names = [name[1:].split(".") for name in imported(path, sources[path]) if name.startswith(".")]
    return {file_of(parts, sources) for parts in names}


def file_of(parts: list[str], sources: Sources) -> str:
    """nodes.host.api.io -> "nodes/host/api.py"; what is no file is given back as it is."""
    for end in range(len(parts), 0, -1):
        stem = "/".join(parts[:end])
        for candidate in (f"{stem}.py", f"{stem}/__init__.py"):
            if candidate in sources:
                return candidate
    return "/".join(parts)


def room_of(path: str) -> str:
    """The longest entry of ROOMS that the path lies in."""
    return max((r for r in ROOMS if path == r or path.startswith(f"{r}/")), key=len)


def rooms(sources: Sources) -> list[str]:
    faults = []
    for path, text in sources.items():
        allowed, outside = ROOMS[room_of(path)]
        faults += [f"{path} -> {t}" for t in inside(path, sources) if folder_room(t) not in allowed]
        names = {name.split(".")[0] for name in imported(path, text)} - {""}
        faults += [f"{path} -> {name}" for name in names - outside]
    return faults


def folder_room(path: str) -> str:
    """As `room_of`, for what is imported: single files have no room of their own there."""
    return max((r for r in ROOMS if path.startswith(f"{r}/")), key=len, default=path)


def kornia(sources: Sources) -> list[str]:
    users = [p for p, text in sources.items() if any(n.split(".")[0] == "kornia" for n in imported(p, text))]
    return [] if len(users) == 1 else users or ["none"]


def pyav(sources: Sources) -> list[str]:
    users = [p for p, text in sources.items() if any(n.split(".")[0] == "av" for n in imported(p, text))]
    return [path for path in users if not path.startswith("ei2_modules/video/")]


def cycles(sources: Sources) -> list[str]:
    try:
        graphlib.TopologicalSorter({path: inside(path, sources) for path in sources}).prepare()
    except graphlib.CycleError as error:
        return [" -> ".join(error.args[1])]
    return []


def floors(sources: Sources) -> list[str]:
    """Arrows within a room that run up or sideways, and files that have no floor."""
    faults = []
    for room in FLOORS:
        here = {path: floor_of(path) for path in sources if room_of(path) == room}
        faults += [f"{path} stands on no floor" for path, (_, floor) in here.items() if floor is None]
        for path, (part, floor) in here.items():
            below = ((t, here[t]) for t in inside(path, sources) if t in here and here[t][0] != part)
            faults += [
                f"{path} -> {target}" for target, (_, other) in below if None in (floor, other) or other <= floor
            ]
    return faults


def floor_of(path: str) -> tuple[str, int | None]:
    """The folder of its room that a file lies in, or the file itself, and the number of its floor from the top."""
    room = room_of(path)
    part = path.removeprefix(f"{room}/").removesuffix(".py").split("/")[0]
    return part, next((i for i, parts in enumerate(FLOORS[room]) if part in parts), None)


def purpose(sources: Sources) -> list[str]:
    return [path for path in sources if PurePosixPath(path).stem in ("utils", "util", "helpers", "misc", "common")]


RULES = {rule.__name__: rule for rule in (rooms, kornia, pyav, cycles, floors, purpose)}

MUST_FAIL = [
    ("rooms", {"__init__.py": "from .ei2_modules import config", "ei2_modules/config.py": ""}),
    ("rooms", {"__init__.py": "import torch"}),
    ("rooms", {"ei2_modules/a.py": "import comfy.utils"}),
    ("rooms", {"ei2_modules/a.py": "def f():\n    from comfy_api.latest import io"}),
    ("rooms", {"ei2_modules/a.py": "import torchvision"}),
    ("rooms", {"ei2_modules/a.py": "from ..nodes.host import api", "nodes/host/api.py": ""}),
    ("rooms", {"ei2_modules/a.py": "from ei2_modules import b", "ei2_modules/b.py": ""}),
    ("rooms", {"ei2_modules/demo/a.py": "from ...nodes import sampler", "nodes/sampler.py": ""}),
    ("rooms", {"nodes/a.py": "import torch"}),
    ("rooms", {"nodes/a.py": "import comfy.samplers"}),
    ("rooms", {"nodes/a.py": "from nodes import common_ksampler"}),
    ("rooms", {"nodes/a.py": "from .b import B", "nodes/b.py": ""}),
    ("rooms", {"nodes/a.py": "from . import b", "nodes/b.py": ""}),
    ("rooms", {"nodes/a.py": "from .extension import NODES", "nodes/extension.py": ""}),
    ("rooms", {"nodes/a.py": "from .. import WEB_DIRECTORY", "__init__.py": ""}),
    ("rooms", {"nodes/extension.py": "import comfy"}),
    ("rooms", {"nodes/host/a.py": "from ..sampler import EI2Sampler", "nodes/sampler.py": ""}),
    ("rooms", {"nodes/host/a.py": "from .. import sampler", "nodes/sampler.py": ""}),
    ("rooms", {"nodes/host/a.py": "import nodes"}),
    ("rooms", {"nodes/host/a.py": "import kornia"}),
    ("kornia", {"ei2_modules/a.py": "import kornia.filters", "ei2_modules/b.py": "from kornia import color"}),
    ("kornia", {"ei2_modules/a.py": ""}),
    ("pyav", {"ei2_modules/a.py": "import av"}),
    ("pyav", {"nodes/host/a.py": "from av.video.frame import VideoFrame"}),
    ("cycles", {"ei2_modules/a.py": "from .b import x", "ei2_modules/b.py": "from . import a"}),
    ("cycles", {"ei2_modules/a.py": "from .b import x", "ei2_modules/b.py": "def f():\n    from .a import y"}),
    ("floors", {"ei2_modules/errors.py": "from .config import x", "ei2_modules/config.py": ""}),
    ("floors", {"ei2_modules/diffusion/a.py": "from ..files import b", "ei2_modules/files/b.py": ""}),
    ("floors", {"ei2_modules/attention/a.py": "from ..tuning.b import x", "ei2_modules/tuning/b.py": ""}),
    ("floors", {"nodes/host/inflating/a.py": "from ..sampling import b", "nodes/host/sampling/b.py": ""}),
    ("floors", {"nodes/host/api.py": "from .tuning.b import x", "nodes/host/tuning/b.py": ""}),
    ("floors", {"ei2_modules/elsewhere/a.py": ""}),
    ("floors", {"nodes/host/elsewhere.py": ""}),
    ("purpose", {"nodes/host/utils.py": ""}),
]

MUST_PASS = [
    ("rooms", {"__init__.py": "def f():\n    from .nodes.extension import E", "nodes/extension.py": ""}),
    ("rooms", {"nodes/extension.py": "from .a import A\nfrom .host import b", "nodes/a.py": "", "nodes/host/b.py": ""}),
    ("rooms", {"nodes/host/a.py": "from ...ei2_modules import __version__", "ei2_modules/__init__.py": ""}),
    ("rooms", {"nodes/host/a.py": "import comfy.utils\nimport torch\nimport os"}),
    ("cycles", {"ei2_modules/a.py": "from .b import x", "ei2_modules/b.py": ""}),
    ("floors", {"ei2_modules/config.py": "from .errors import x", "ei2_modules/errors.py": ""}),
    ("floors", {"ei2_modules/tuning/a.py": "from . import b", "ei2_modules/tuning/b.py": ""}),
    ("floors", {"nodes/host/tuning/a.py": "from ..inflating.b import x", "nodes/host/inflating/b.py": ""}),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_pack_keeps(rule):
    assert RULES[rule](pack_sources()) == []


@pytest.mark.parametrize(("rule", "sources"), MUST_FAIL)
def test_a_breach_is_seen(rule, sources):
    assert RULES[rule](sources)


@pytest.mark.parametrize(("rule", "sources"), MUST_PASS)
def test_what_is_allowed_passes(rule, sources):
    assert RULES[rule](sources) == []


def test_floors_name_what_exists():
    """A renamed folder must not leave a name behind."""
    found = {room: set() for room in FLOORS}
    for path in pack_sources():
        if room_of(path) in FLOORS:
            found[room_of(path)].add(floor_of(path)[0])
    assert found == {room: {part for parts in floors for part in parts} for room, floors in FLOORS.items()}
