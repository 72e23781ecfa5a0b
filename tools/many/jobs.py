"""The table jobs.csv: one row, one job. Its columns:

clip     a video file, beside the table or below it
caption  what the clip shows now
prompt   what it shall show
name     of the result, if it shall not be the clip's name
Node.input, such as EI2OneShotTune.steps: that input of that node; an empty cell leaves the workflow's own
"""

import csv
import hashlib
import io
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from ei2_modules.files import names

TABLE = "jobs.csv"
NEEDED = ("clip", "caption", "prompt")


@dataclass(frozen=True)
class Job:
    name: str
    clip: Path
    caption: str
    prompt: str
    settings: dict[str, str] = field(default_factory=dict)  # "Node.input": text

    def card(self) -> dict:
        """What decides how the result looks, but for the workflow. The clip goes by its bytes."""
        words = {"caption": self.caption, "prompt": self.prompt, "settings": self.settings}
        return {"clip": hashlib.sha256(self.clip.read_bytes()).hexdigest(), **words}


def read(folder: Path) -> list[Job]:
    """The rows of a folder's table. Raises ValueError that names every fault."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}.")
    path = folder / TABLE
    if not path.is_file():
        raise ValueError(f"{folder} has no {TABLE}: a table with the columns {', '.join(NEEDED)}, one row a job.")
    rows = _rows(path)
    found = [_job(folder, row) for _, row in rows]
    wrong = [f"line {line}: {fault}" for line, row in rows for fault in _faults(folder, row)]
    wrong += _twice([job.name for job in found])
    if wrong or not found:
        raise ValueError(f"{path}:\n  " + "\n  ".join(wrong or ["no rows below the heading: add one for each clip."]))
    return found


def _rows(path: Path) -> list[tuple[int, dict]]:
    """Line numbers and rows, without empty ones. Raises ValueError for a table that cannot be read."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8: save it as 'CSV UTF-8'.") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True)
    reader.fieldnames = [_column(name.strip()) for name in reader.fieldnames or []]
    _check_heading(path, reader.fieldnames)
    rows = [(reader.line_num, row) for row in reader]
    return [(line, row) for line, row in rows if any(row.values())]


def _column(name: str) -> str:
    """Ours may be written Clip or CLIP; a node's input is as ComfyUI has it."""
    return name.lower() if name.lower() in (*NEEDED, "name") else name


def _check_heading(path: Path, names: list[str]) -> None:
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise ValueError(f"{path} lacks the column {', '.join(missing)}; its first line is: {', '.join(names)}")
    unknown = [name for name in names if name not in (*NEEDED, "name") and not re.fullmatch(r"[^.]+\.[^.]+", name)]
    if unknown:
        known = f"{', '.join(NEEDED)}, name, or a node and its input such as EI2OneShotTune.steps"
        raise ValueError(f"{path} has a column {unknown[0]!r}: columns are {known}.")


def _job(folder: Path, row: dict) -> Job:
    text = {name: (value or "").strip() for name, value in row.items() if isinstance(name, str)}
    settings = {name: value for name, value in text.items() if "." in name and value}
    name = names.composed(text.get("name") or Path(text["clip"]).stem)
    return Job(name, _clip(folder, text["clip"]), text["caption"], text["prompt"], settings)


def _clip(folder: Path, name: str) -> Path:
    """The table and the disk may write "é" in different ways."""
    ways = [folder / unicodedata.normalize(form, name) for form in ("NFC", "NFD")]
    return next((path for path in ways if path.is_file()), folder / name)


def _faults(folder: Path, row: dict) -> list[str]:
    job = _job(folder, row)
    wrong = [f"{name} is empty." for name in NEEDED if not (row[name] or "").strip()]
    if None in row:
        wrong.append('more cells than the heading: put text with commas in quotes, "like, this".')
    if row["clip"] and not job.clip.is_file():
        wrong.append(f"there is no file {job.clip}.")
    fault = job.name and names.name_fault(job.name)
    if fault:
        wrong.append(f"{job.name!r} cannot name a result: {fault}. Give another in the column name.")
    return wrong


def _twice(names: list[str]) -> list[str]:
    plain = [name.casefold() for name in names]
    twice = sorted({name for name in names if plain.count(name.casefold()) > 1})
    return [f"{name!r} is the name of several rows: tell them apart in a column name." for name in twice if name]
