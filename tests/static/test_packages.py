"""How the programs, benchmarks and tests may import each other, read with `ast` alone. The pack has test_imports.py."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from tools import ROOT

from .test_imports import imported

# folder -> what its files may import of this repository, beside their own folder
ARROWS = {
    "tools": set(),
    "tools/server": {"tools"},
    "tools/demo": {"tools", "tools/server", "ei2_modules"},
    "tools/many": {"tools", "tools/server", "tools/demo", "ei2_modules"},
    "tools/train": {"tools", "tools/server", "ei2_modules"},
    "benchmarks": set(),
    "benchmarks/common": {"tools/server"},
    "benchmarks/atlas": {"tools/server", "tools/demo", "benchmarks/common", "benchmarks/quality", "ei2_modules"},
    "benchmarks/speed": {"tools/server", "benchmarks/common", "ei2_modules"},
    "benchmarks/memory": {"tools/server", "tools/demo", "benchmarks/common"},
    "benchmarks/quality": {"tools/server", "tools/demo", "benchmarks", "benchmarks/common", "ei2_modules"},
    "benchmarks/fidelity": {"tools/server", "tools/demo", "benchmarks/common", "benchmarks/quality", "ei2_modules"},
    "tests": {"tools", "tools/server", "tools/demo"},
}
# Folders of tests that use another one; the rest stands by itself.
BETWEEN_TESTS = {
    "tests/packs": {"tests/nodes"},
    "tests/packs/cases": {"tests/nodes", "tests/packs"},
    "tests/tools": {"tests/packs"},
}
OWN = ("tools", "benchmarks", "tests", "ei2_modules")
# Where Python looks for modules is changed here alone: by the public command, and where the host comes in.
PATH_CHANGERS = {"tools/many_clips.py", "tools/server/in_process.py"}

Sources = dict[str, str]  # path below the repository's root -> text


def sources() -> Sources:
    files = [path for name in OWN[:3] for path in (ROOT / name).rglob("*.py")]
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


def own(names: Iterator[str]) -> Iterator[str]:
    """Full names of ours: relative imports begin with a dot there, and absolute ones do not."""
    return (name.removeprefix(".") for name in names if name.removeprefix(".").split(".")[0] in OWN)


def folder(module: str, known: Sources) -> str:
    """The folder of the repository in which an imported module or name lies."""
    parts = module.split(".")
    if parts[0] == "ei2_modules":
        return parts[0]
    packages = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((name for name in packages if f"{name}/__init__.py" in known), parts[0])


def arrows(files: Sources) -> list[str]:
    """Imports that run against the direction. Folders of tests may use anything but each other."""
    faults = []
    for path, text in files.items():
        here = str(PurePosixPath(path).parent)
        found = {folder(name, files) for name in own(imported(path, text))} - {here}
        if here.startswith("tests/"):
            wrong = {name for name in found if name.startswith("tests/")} - BETWEEN_TESTS.get(here, set())
        else:
            wrong = found - ARROWS.get(here, set())
        faults += [f"{path} -> {name}" for name in wrong]
    return faults


def relative(files: Sources) -> list[str]:
    """pytest names the tests after the folder of the clone: `tests` is found by relative imports only."""
    imports = (node for text in files.values() for node in ast.walk(ast.parse(text)))
    names = [node.module or "" for node in imports if isinstance(node, ast.ImportFrom) and not node.level]
    return [name for name in names if name.split(".")[0] == "tests"]


def packages(files: Sources) -> list[str]:
    """Folders of Python files that are no packages."""
    folders = {PurePosixPath(path).parent for path in files}
    return [str(name) for name in folders if f"{name}/__init__.py" not in files]


def path_changes(files: Sources) -> list[str]:
    changed = re.compile(r"\bsys\.path\b")
    return [path for path, text in files.items() if changed.search(text) and path not in PATH_CHANGERS | {THIS}]


THIS = Path(__file__).resolve().relative_to(ROOT).as_posix()
RULES = {rule.__name__: rule for rule in (arrows, relative, packages, path_changes)}
TREE = dict.fromkeys(
    ["tools/__init__.py", "tools/server/__init__.py", "tools/demo/__init__.py", "benchmarks/__init__.py",
     "benchmarks/quality/__init__.py", "tests/__init__.py", "tests/nodes/__init__.py", "tests/host/__init__.py"], ""
)  # fmt: skip

MUST_FAIL = [
    ("arrows", {"tools/server/a.py": "from ..demo import clip"}),
    ("arrows", {"tools/server/a.py": "def f():\n    from tools.demo.clip import bunny"}),
    ("arrows", {"tools/demo/a.py": "from benchmarks.quality import cases"}),
    ("arrows", {"tools/demo/a.py": "import tests.nodes.mini"}),
    ("arrows", {"benchmarks/quality/a.py": "from tests.nodes import mini"}),
    ("arrows", {"tests/nodes/a.py": "from ..host import conftest"}),
    ("relative", {"tests/nodes/a.py": "from tests.same import same"}),
    ("packages", {"tools/new/a.py": ""}),
    ("path_changes", {"tools/demo/a.py": "import sys\nsys.path.insert(0, '')"}),
    ("path_changes", {"tests/nodes/conftest.py": "import sys\nsys.path[:0] = ['']"}),
]

MUST_PASS = [
    ("arrows", {"tools/demo/a.py": "from .. import ROOT\nfrom ..server import editor\nfrom . import clip"}),
    ("arrows", {"tools/demo/a.py": "import torch\nfrom ei2_modules.demo import scenes"}),
    ("arrows", {"benchmarks/quality/a.py": "from .. import RESULTS\nfrom tools.demo import video_files"}),
    ("arrows", {"tests/nodes/a.py": "from benchmarks.quality import cases\nfrom .mini import x\nfrom ..same import y"}),
    ("relative", {"tests/nodes/a.py": "from ..same import same\nfrom tests_of import x"}),
    ("packages", {"tools/demo/a.py": ""}),
    ("path_changes", {"tools/server/in_process.py": "import sys\nsys.path[:] = []"}),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_repository_keeps(rule):
    assert RULES[rule](sources()) == []


@pytest.mark.parametrize(("rule", "files"), MUST_FAIL)
def test_a_breach_is_seen(rule, files):
    assert RULES[rule](TREE | files)


@pytest.mark.parametrize(("rule", "files"), MUST_PASS)
def test_what_is_allowed_passes(rule, files):
    assert RULES[rule](TREE | files) == []


def test_the_arrows_name_folders_that_exist():
    assert [name for name in ARROWS if not (ROOT / name / "__init__.py").is_file()] == []
