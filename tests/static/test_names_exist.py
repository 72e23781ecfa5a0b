"""What one file of the repository takes from another is there. Programs are imported by no test, so a name that moved
would be missed where it is used least: in a benchmark of hours."""

import ast
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("ei2_modules", "nodes", "tools", "benchmarks", "tests")
LOADERS = {"pack", "pack_alone"}  # pack("nodes.host.api").io
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)

Sources = dict[str, str]  # path below the root -> text


def sources() -> Sources:
    files = [ROOT / "__init__.py", *(file for folder in FOLDERS for file in ROOT.glob(f"{folder}/**/*.py"))]
    return {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}


def file_of(module: str, found: Sources) -> str | None:
    stem = module.replace(".", "/")
    return next((path for path in (f"{stem}.py", f"{stem}/__init__.py".lstrip("/")) if path in found), None)


def taken(path: str, tree: ast.Module) -> Iterator[tuple[str, str]]:
    """(module, name) of everything a file takes from a module, by import or through a loader."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            folders = PurePosixPath(path).parts[: -node.level] if node.level else ()
            module = ".".join([*folders, *([node.module] if node.module else [])])
            yield from ((module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and (module := loaded(node.value)):
            yield module, node.attr


def loaded(node: ast.expr) -> str | None:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in LOADERS:
        (module,) = node.args
        return module.value if isinstance(module, ast.Constant) else None
    return None


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


def missing(found: Sources) -> list[str]:
    trees = {path: ast.parse(text) for path, text in found.items()}
    names = {path: set(bound(tree)) for path, tree in trees.items()}

    def there(module: str, name: str) -> bool:
        file = file_of(module, found)
        return file is None or name in names[file] or file_of(f"{module}.{name}", found) is not None or name == "*"

    return [
        f"{path}: {module}.{name}"
        for path, tree in trees.items()
        for module, name in taken(path, tree)
        if module.split(".")[0] in FOLDERS and not (there(module, name) and known(module, found))
    ]


def known(module: str, found: Sources) -> bool:
    """A module of ours: a file, or a folder of files."""
    return file_of(module, found) is not None or any(path.startswith(module.replace(".", "/") + "/") for path in found)


def test_every_name_is_there():
    assert missing(sources()) == []


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
