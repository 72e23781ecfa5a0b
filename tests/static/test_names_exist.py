"""What one file of the repository takes from another is there. Programs are imported by no test, so a name that moved
would be missed where it is used least: in a benchmark of hours."""

import ast
from collections.abc import Iterator

import pytest

from . import test_packages
from .test_imports import Sources, imported, pack_sources

FOLDERS = ("ei2_modules", "nodes", "tools", "benchmarks", "tests")
LOADERS = {"pack", "pack_alone"}  # pack("nodes.host.api").io
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


def taken(path: str, text: str) -> Iterator[list[str]]:
    """Modules and names of ours that a file takes, by import or through a loader, split at their dots."""
    loaded = (
        f"{node.value.args[0].value}.{node.attr}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and loads(node.value)
    )
    names = (name.removeprefix(".").split(".") for name in (*imported(path, text), *loaded))
    return (parts for parts in names if parts[0] in FOLDERS)


def loads(node: ast.expr) -> bool:
    """Whether this is a call of a loader, with a module's name written out."""
    by_loader = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOADERS
    return by_loader and isinstance(node.args[0], ast.Constant)


def bound(node: ast.AST) -> Iterator[str]:
    """Names that a file has once it is imported."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name.split(".")[0] for alias in child.names)
        elif isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store):
            yield child.id
        elif isinstance(child, SCOPES):
            yield getattr(child, "name", "")
        else:
            yield from bound(child)


def missing(sources: Sources) -> list[str]:
    names = {path: {"*", *bound(ast.parse(text))} for path, text in sources.items()}

    def there(parts: list[str]) -> bool:
        """A file, a folder of files, or a name that the file before the last dot has."""
        whole, module = ("/".join(parts[:end]) for end in (len(parts), len(parts) - 1))
        files = [file for file in (f"{module}.py", f"{module}/__init__.py") if file in names]
        is_module = f"{whole}.py" in names or any(path.startswith(f"{whole}/") for path in names)
        return is_module or any(parts[-1] in names[file] for file in files)

    return [f"{path}: {'.'.join(p)}" for path, text in sources.items() for p in taken(path, text) if not there(p)]


def test_every_name_is_there():
    assert missing({**pack_sources(), **test_packages.sources()}) == []


A = {"tools/__init__.py": "ROOT = 1", "tools/a.py": "def f(): inner = 1\nif f: there = 2\nimport os.path"}


@pytest.mark.parametrize(
    "text",
    [
        "from tools.a import f, there, os",
        "from tools import a, ROOT",
        "from .a import f",
        "from . import a",
        "pack('tools.a').f",
        "from torch import nothing",
    ],
)
def test_there(text):
    assert missing({**A, "tools/b.py": text}) == []


@pytest.mark.parametrize(
    "text",
    [
        "from tools.a import inner",
        "from tools.a import g",
        "from tools import c",
        "from tools.c import f",
        "from .a import g",
        "def late():\n    from . import c",
        "pack('tools.a').g",
        "pack_alone('tools.c').f",
    ],
)
def test_not_there(text):
    assert missing({**A, "tools/b.py": text}) != []
