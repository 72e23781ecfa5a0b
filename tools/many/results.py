"""The folder of a finished job: its files and job.json, which says what they were made of.

It gets its name when everything is in it, in one step: a folder that is there is finished, whatever was killed when.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

CARD = "job.json"


def missing(cards: dict[str, dict], out: Path) -> list[str]:
    """Names of the jobs without result. Raises ValueError for a result that was made of something else."""
    there = [name for name in cards if (out / name).exists()]
    wrong = [fault for name in there for fault in _faults(out / name, cards[name])]
    if wrong:
        raise ValueError("\n  ".join(["These results do not fit:", *wrong]))
    return [name for name in cards if name not in there]


def keep(out: Path, name: str, card: dict, files: list[dict], download: Callable[[dict, Path], None]) -> None:
    """Fetch a job's files as `name` with their suffixes, and write its card."""
    partial = out / f".{name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for i, file in enumerate(files):
        number = f"_{i + 1}" if i else ""
        download(file, partial / f"{name}{number}{Path(file['filename']).suffix}")
    card = {**card, "files": sorted(path.name for path in partial.iterdir())}
    (partial / CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    partial.rename(out / name)


def _faults(folder: Path, card: dict) -> list[str]:
    remedy = "delete that folder, give the row another name, or choose another --out."
    try:
        found = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return [f"{folder} has no readable {CARD}: {remedy}"]
    differs = [key for key, value in card.items() if found.get(key) != value]
    lost = [name for name in found.get("files", []) if not (folder / name).is_file()]
    made = [f"{folder} was made with another {', '.join(differs)}: {remedy}"] if differs else []
    return made + ([f"{folder} lacks {', '.join(lost)}: {remedy}"] if lost else [])
