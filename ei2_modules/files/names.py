"""One rule for the names of files and folders that a user types: such as every system can hold."""

import unicodedata
from itertools import count
from pathlib import Path

MOST_BYTES = 200  # of 255 that file systems hold: a number, a suffix and the mark of a half-written file come on top
PUNCTUATION = " _.()+-"
RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in "123456789¹²³")}  # Windows'


def composed(name: str) -> str:
    """NFC, one code for "é": macOS writes two, and the same name would be another one elsewhere."""
    return unicodedata.normalize("NFC", name)


def name_fault(name: str) -> str | None:
    """What keeps it from being a name, as the end of a sentence, or None. Letters may be those of any script."""
    name = composed(name)
    odd = sorted({c for c in name if c not in PUNCTUATION and unicodedata.category(c)[0] not in "LMN"})
    stem = name.partition(".")[0].rstrip().upper()
    faults = {
        "it is empty": not name.strip(),
        f"it holds {' '.join(map(repr, odd))}; use letters, digits, spaces and _ . - + ( )": odd,
        "it holds two dots in a row": ".." in name,
        "it must begin with a letter, a digit or _": name and not (name[0] == "_" or name[0].isalnum()),
        "it ends in a dot or a space, which Windows drops": name != name.rstrip(" ."),
        f"{stem} is the name of a device on Windows": stem in RESERVED,
        f"it takes {len(name.encode())} bytes, and {MOST_BYTES} are the most": len(name.encode()) > MOST_BYTES,
    }
    return next((fault for fault, holds in faults.items() if holds), None)


def fresh(folder: Path, name: str, suffix: str, first: int = 1) -> Path:
    """The first that is not there of name_00001_.suffix, name_00002_.suffix, and so on."""
    paths = (folder / f"{name}_{number:05}_{suffix}" for number in count(first))
    return next(path for path in paths if not path.exists())
