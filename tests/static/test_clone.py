"""`python dev.py demo` and then `python dev.py test` in one clone: what is written there changes no check."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"benchmarks", "ei2_modules", "nodes", "tests", "tools"}
BY_FOLDERS = ["--config", 'src = ["."]']  # ruff's default: what is a folder in the clone is ours


@pytest.fixture(scope="module")
def clone(tmp_path_factory) -> Path:
    """The Python files of this tree and the settings of its checks."""
    folder = tmp_path_factory.mktemp("clone")
    files = [*ROOT.glob("*.py"), *(path for name in OURS for path in (ROOT / name).rglob("*.py"))]
    for path in [*files, ROOT / "pyproject.toml", ROOT / ".gitignore"]:
        (folder / path.relative_to(ROOT)).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / path.relative_to(ROOT))
    return folder


@pytest.fixture(scope="module")
def used(clone, tmp_path_factory) -> Path:
    """The same clone after the demo, and after whatever else may leave a folder with the name of an imported module."""
    folder = tmp_path_factory.mktemp("used") / "clone"
    shutil.copytree(clone, folder)
    for name in {"demo", *imported(clone)} - OURS:
        folder.joinpath(name).mkdir()
        folder.joinpath(name, "edit.mp4").touch()
    return folder


def imported(folder: Path) -> set[str]:
    """Top-level names."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and not node.level]
    return {name.split(".")[0] for name in names}


def ruff(folder: Path, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "ruff", *arguments, "--no-cache", "."]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout


CHECKS = [["check", "--output-format=concise"], ["format", "--check"]]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check[0])
def test_the_checks_say_the_same(clone, used, check):
    assert ruff(used, *check) == ruff(clone, *check)


def test_a_difference_would_be_seen(clone, used):
    assert ruff(used, *CHECKS[0], *BY_FOLDERS) != ruff(clone, *CHECKS[0], *BY_FOLDERS)
