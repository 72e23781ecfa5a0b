"""Runs the cases of every pack in a folder, each pack in a process of its own, and prints the table."""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from tools import ROOT

from . import table
from .found import Found, packs

PACK, RESULTS = "EI2_BESIDE", "EI2_BESIDE_RESULTS"  # variables of a pack's process: its folder, and where results go


def main(arguments: list[str] | None = None) -> int:
    """0: all that was run holds. 1: something does not. 2: nothing was run."""
    options = parse(arguments)
    try:
        found = [pack for pack in packs(options.folder) if options.only in (None, pack.name)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    rows = [(pack.name, pack.version, host_version(), *result) for pack in found for result in run(pack)]
    before = options.out.read_text(encoding="utf-8") if options.out and options.out.is_file() else ""
    system = f"Python {platform.python_version()}, PyTorch {version('torch')}, on the CPU."
    text = table.page(rows, system, before)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text)
    return int(any(result.startswith("failed") for *_, result in rows))


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py test --packs", description=__doc__)
    parser.add_argument("folder", type=Path, help="with the packs, such as ComfyUI's custom_nodes")
    parser.add_argument("--only", help="the name of one of them")
    parser.add_argument("--out", type=Path, help="a file for the table; rows of other ComfyUIs stay in it")
    return parser.parse_args(arguments)


def run(pack: Found) -> list[tuple[str, str]]:
    """(case, result) of each; pytest's own words go to stderr."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder, "results.jsonl")
        variables = {**os.environ, PACK: str(pack.path), RESULTS: str(told)}
        pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, pack.cases)]
        code = subprocess.call(pytest, cwd=ROOT, env=variables, stdout=sys.stderr)
        lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    rows = [tuple(json.loads(line)) for line in lines]
    results = {result for _, result in rows}
    if len(results) == 1 and results.pop().startswith("not run"):
        rows = [("all", rows[0][1])]
    died = [("all", f"failed: the process ended with code {code}")] if code not in (0, 1) else []
    return rows + died


def host_version() -> str:
    text = Path(os.environ["COMFYUI_PATH"], "comfyui_version.py").read_text(encoding="utf-8")
    return text.partition('"')[2].partition('"')[0]


if __name__ == "__main__":
    sys.exit(main())
