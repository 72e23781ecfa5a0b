"""What every benchmark says of itself: its table, the machine, how to repeat it, and the same as JSON."""

import argparse
import importlib
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch


def parse(options: argparse.ArgumentParser, as_json: bool = True) -> argparse.Namespace:
    """Read the command line, with the options every benchmark has, and set the number of threads."""
    options.prog, options.formatter_class = f"python dev.py bench {name()}", argparse.RawDescriptionHelpFormatter
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    if as_json:
        options.add_argument("--json", type=Path, help="write the results here too")
    values = options.parse_args()
    torch.set_num_threads(values.threads)
    return values


def now() -> float:
    """Seconds: of the device where there is one, else of this process's CPU time, a thread's share."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.monotonic()
    return time.process_time() / torch.get_num_threads()


def publish(rows: list[dict], values: argparse.Namespace, notes: tuple[str, ...] = ()) -> None:
    """Print rows of equal keys; write them as JSON when asked."""
    print("\n" + table(rows))
    print(*notes, origin(), sep="\n")
    if values.json:
        settings = {name: value for name, value in vars(values).items() if name != "json"}
        result = {"repeat": repeat(), "settings": settings, "machine": machine(), "notes": list(notes), "rows": rows}
        values.json.write_text(json.dumps(result, indent=1, ensure_ascii=False, default=str) + "\n")


def origin() -> str:
    """Where figures come from, and how to get them again."""
    return f"machine: {', '.join(f'{k} {v}' for k, v in machine().items())}\nrepeat:  {repeat()}"


def markdown(rows: Iterable[dict]) -> Iterator[str]:
    """A table of rows of equal keys, line by line as they come."""
    for i, row in enumerate(rows):
        yield from [] if i else [_cells(row), _cells("---" for _ in row)]
        yield _cells(map(_text, row.values()))


def table(rows: list[dict]) -> str:
    """Columns as wide as they need, numbers to the right."""
    cells = [list(rows[0])] + [[_text(v) for v in row.values()] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(line, widths, strict=True)) for line in cells)


def machine() -> dict:
    """In general terms: no names of hosts or folders."""
    about = {
        "system": platform.system(),
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if "comfy" in sys.modules:
        about["comfyui"] = importlib.import_module("comfyui_version").__version__
    about["threads"] = torch.get_num_threads()
    if torch.cuda.is_available():
        about["gpu"] = torch.cuda.get_device_name()
        about["GiB"] = round(torch.cuda.get_device_properties().total_memory / 2**30, 1)
        about["cuda"] = torch.version.cuda or f"hip {torch.version.hip}"
    return about


def repeat() -> str:
    """The command, without where the JSON went."""
    words, skip = [], False
    for word in sys.argv[1:]:
        if not skip and not word.startswith("--json"):
            words.append(word)
        skip = word == "--json"
    return shlex.join(["python", "dev.py", "bench", name(), *words])


def name() -> str:
    """Of the benchmark that runs: its module, or its package."""
    return sys.modules["__main__"].__spec__.name.removesuffix(".__main__").rpartition(".")[2]


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _text(value) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
