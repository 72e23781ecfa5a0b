"""What the pack must never do: run text or commands, unpickle, use the network, print, change the host.

Read with `ast` alone. A name that no import explains counts as a builtin: `eval` is "builtins.eval".
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = 300

# A name stands for itself and everything below it.
BANNED = {
    "running text": ("builtins.eval", "builtins.exec", "builtins.compile", "builtins.__import__", "importlib", "runpy"),
    "pickle": ("pickle", "marshal", "shelve", "dill", "joblib", "torch.load", "torch.save", "numpy.load"),
    "commands": ("subprocess", "os.system", "os.popen", "os.startfile", "pip", "ctypes", "multiprocessing"),
    "network": ("socket", "ssl", "urllib", "http", "requests", "httpx", "aiohttp", "ftplib", "smtplib", "torch.hub"),
    "printing": ("builtins.print", "builtins.breakpoint"),
}
BANNED_STARTS = ("os.exec", "os.spawn", "os.posix_spawn")
HOST = ("comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "latent_preview", "nodes", "server")
HOST_BY_WAY_OF_US = (".host.api", ".api")  # hands host classes on

SETTERS = ("builtins.setattr", "builtins.delattr", "builtins.vars")

# Our own entry in the host's table of folders: the host offers no call that sets the suffixes.
OWN_ENTRIES = {"folder_paths.folder_names_and_paths"}


def pack_files() -> dict[str, str]:
    files = [ROOT / "__init__.py", *ROOT.glob("nodes/**/*.py"), *ROOT.glob("ei2_modules/**/*.py")]
    return {f.relative_to(ROOT).as_posix(): f.read_text(encoding="utf-8") for f in files}


def imports(tree: ast.AST) -> Iterator[tuple[str, str, str]]:
    """(name in the file, what it stands for, what was imported); relative imports begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.split(".")[0]
                yield alias.asname or top, alias.name if alias.asname else top, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                full = f"{'.' * node.level}{node.module or ''}.{alias.name}"
                yield alias.asname or alias.name, full, full


def dotted(node: ast.AST, known: dict[str, str]) -> str:
    """`mm.x` -> "comfy.model_management.x"; "" for what is no chain of names."""
    if isinstance(node, ast.Name):
        return known.get(node.id, f"builtins.{node.id}")
    if isinstance(node, ast.Attribute):
        base = dotted(node.value, known)
        return f"{base}.{node.attr}" if base else ""
    return ""


def is_below(name: str, roots) -> bool:
    return any(name == root or name.startswith(f"{root}.") for root in roots)


def used_names(tree: ast.AST) -> Iterator[str]:
    """Everything imported, and every chain of names, with aliases resolved; but for calls that take weights only."""
    found = list(imports(tree))
    known = {name: meaning for name, meaning, _ in found}
    safe = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call) and takes_weights_only(node)}
    yield from (full for _, _, full in found)
    chains = (node for node in ast.walk(tree) if isinstance(node, ast.Name | ast.Attribute) and id(node) not in safe)
    yield from (dotted(node, known) for node in chains)


def takes_weights_only(call: ast.Call) -> bool:
    """`x.load(path, weights_only=True)`, written out: nothing is unpickled but tensors and plain containers."""
    is_load = isinstance(call.func, ast.Attribute) and call.func.attr == "load"
    only = [k.value for k in call.keywords if k.arg == "weights_only"]
    return is_load and len(only) == 1 and isinstance(only[0], ast.Constant) and only[0].value is True


def banned(text: str) -> list[str]:
    names = set(used_names(ast.parse(text)))
    words = [word for group in BANNED.values() for word in group]
    return sorted(n for n in names if is_below(n, words) or n.startswith(BANNED_STARTS))


def host_changes(text: str) -> list[str]:
    """Assignments to, and deletions of, attributes or items of what was imported from the host."""
    tree = ast.parse(text)
    known = {name: meaning for name, meaning, _ in imports(tree)}
    targets = [dotted(unwrapped(node), known) for node in ast.walk(tree) if is_target(node)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    targets += [dotted(c.args[0], known) for c in calls if dotted(c.func, known) in SETTERS]
    return sorted(t for t in targets if is_below(t, HOST + HOST_BY_WAY_OF_US) and t not in OWN_ENTRIES)


def is_target(node: ast.AST) -> bool:
    changed = isinstance(getattr(node, "ctx", None), ast.Store | ast.Del)
    return changed and isinstance(node, ast.Attribute | ast.Subscript)


def unwrapped(node: ast.AST) -> ast.AST:
    """The table of a changed item, the owner's attribute of a changed attribute."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node


def too_long(text: str) -> list[str]:
    lines = len(text.splitlines())
    return [f"{lines} lines"] if lines > MOST_LINES else []


RULES = {rule.__name__: rule for rule in (banned, host_changes, too_long)}

MUST_FAIL = [
    ("banned", "eval('1')"),
    ("banned", "run = exec"),
    ("banned", "import builtins\nbuiltins.eval('1')"),
    ("banned", "compile('1', '', 'eval')"),
    ("banned", "__import__('os')"),
    ("banned", "from importlib import import_module"),
    ("banned", "import pickle"),
    ("banned", "from pickle import loads"),
    ("banned", "import torch\ntorch.load(path)"),
    ("banned", "import torch as t\nt.load(path)"),
    ("banned", "from torch import load"),
    ("banned", "import torch\ntorch.load(path, weights_only=False)"),
    ("banned", "import torch\ntorch.load(path, weights_only=safe)"),
    ("banned", "import torch\ntorch.load(path, **{'weights_only': True})"),
    ("banned", "import torch\ntorch.load(torch.load(path), weights_only=True)"),
    ("banned", "import torch\ntorch.save(path, weights_only=True)"),
    ("banned", "import pickle\npickle.load(path, weights_only=True)"),
    ("banned", "def f():\n    import subprocess as s"),
    ("banned", "import os\nos.system('ls')"),
    ("banned", "from os import system as run"),
    ("banned", "import os\nos.execvp(a, b)"),
    ("banned", "import socket"),
    ("banned", "import urllib.request"),
    ("banned", "from urllib.request import urlopen"),
    ("banned", "import requests"),
    ("banned", "import http.client"),
    ("banned", "print('x')"),
    ("host_changes", "import comfy.samplers\ncomfy.samplers.sample = mine"),
    ("host_changes", "import comfy.model_management as mm\nmm.x.y = 1"),
    ("host_changes", "from comfy.ldm.modules.attention import BasicTransformerBlock as B\nB.forward = mine"),
    ("host_changes", "from comfy import sd\nsetattr(sd.VAE, 'decode', mine)"),
    ("host_changes", "from comfy import sd\ndel sd.VAE.decode"),
    ("host_changes", "from comfy import sd\nsd.count += 1"),
    ("host_changes", "from comfy import sd\nsd.count: int = 1"),
    ("host_changes", "from comfy import sd\nfor sd.x in y: pass"),
    ("host_changes", "from comfy import sd\na, sd.x = y"),
    ("host_changes", "import comfy.samplers as s\ns.KSampler.NAMES['x'] = 1"),
    ("host_changes", "from .host.api import io\nio.ComfyNode.execute = mine"),
    ("host_changes", "import nodes\nnodes.NODE_CLASS_MAPPINGS['x'] = 1"),
    ("too_long", "\n" * (MOST_LINES + 1)),
]

MUST_PASS = [
    ("banned", "import torch\ntorch.load(path, weights_only=True)"),
    ("banned", "import re\nre.compile('x')"),
    ("banned", "import os\nos.replace(a, b)"),
    ("banned", "self.compile = model.eval()"),
    ("banned", "from .http import x"),
    ("banned", "requests = []\nrequests.append(1)"),
    ("banned", "from safetensors.torch import load_file"),
    ("host_changes", "import comfy.sd\nmodel = comfy.sd.load()\nmodel.x = 1"),
    ("host_changes", "import comfy.sd\nx = comfy.sd.y"),
    ("too_long", "\n" * MOST_LINES),
]


@pytest.mark.parametrize("rule", RULES)
def test_the_pack_keeps(rule):
    faults = {path: RULES[rule](text) for path, text in pack_files().items()}
    assert {path: found for path, found in faults.items() if found} == {}


@pytest.mark.parametrize(("rule", "text"), MUST_FAIL)
def test_a_breach_is_seen(rule, text):
    assert RULES[rule](text)


@pytest.mark.parametrize(("rule", "text"), MUST_PASS)
def test_what_is_harmless_passes(rule, text):
    assert RULES[rule](text) == []
