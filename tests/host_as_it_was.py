"""Every function, class and method of ComfyUI that the pack can reach, as they are at one moment."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "latent_preview", "nodes"}


def import_what_the_pack_imports(root: Path) -> None:
    """So that a look before the pack is there sees what it could change while it is imported."""
    for path in [*root.glob("nodes/**/*.py"), *root.glob("ei2_modules/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            for name in names:
                if name.split(".")[0] in HOST:
                    importlib.import_module(name)


def look() -> dict[tuple[str, ...], object]:
    """(module, name) and (module, class, name) -> what stands there."""
    found = {}
    for module in [m for name, m in sys.modules.items() if m and name.split(".")[0] in HOST]:
        for name, value in list(vars(module).items()):
            if callable(value):
                found[module.__name__, name] = value
            if inspect.isclass(value) and value.__module__ == module.__name__:
                found |= {(module.__name__, name, k): v for k, v in vars(value).items() if k != "__doc__"}
    return found


def changed(before: dict, after: dict) -> list[str]:
    """Names of which something else stands there now, or nothing; new names are no change."""
    return sorted(".".join(name) for name, value in before.items() if after.get(name) is not value)
