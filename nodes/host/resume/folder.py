"""A folder of states: of stopped work, and of work that is not to be done twice. The newest few of them stay."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from ....ei2_modules.errors import EI2Error

SUFFIX = ".ei2state"


@dataclass(frozen=True)
class StatesFolder:
    """where: asked anew every time, for the host's folders may be moved. work: whose states they are, in a word."""

    where: Callable[[], Path]
    keep: int
    work: str

    def newest_first(self) -> list[Path]:
        folder = self.where()
        paths = folder.glob(f"*{SUFFIX}") if folder.is_dir() else ()
        return sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)

    def new_path(self, stem: str) -> Path:
        """Of work that begins now: the time is added, and a number where that is not enough."""
        stem, taken = f"{stem}{datetime.now():%Y-%m-%d %H-%M-%S}", {path.name for path in self.newest_first()}
        names = (f"{stem}{number}{SUFFIX}" for number in ("", *(f" ({i})" for i in range(2, 1000))))
        return self.where() / next(name for name in names if name not in taken)

    def furthest_first(self, done: Callable[[Path], int | None]) -> list[tuple[Path, int]]:
        """Files and the steps that `done` says of them, None for what does not belong. Damaged ones are left out."""
        found = []
        for path in self.newest_first():
            with passed_over_when_damaged():
                steps = done(path)
                if steps is not None:
                    found.append((path, steps))
        return sorted(found, key=lambda match: match[1], reverse=True)

    def prune(self) -> None:
        """Keep the newest few."""
        for path in self.newest_first()[self.keep :]:
            path.unlink(missing_ok=True)
            logging.info("EI²: removed the old %s state %s", self.work, path.name)


@contextlib.contextmanager
def passed_over_when_damaged() -> Iterator[None]:
    """A file that cannot be gone on from is said in the log, and the next one looked at."""
    try:
        yield
    except EI2Error as error:
        logging.warning("EI²: %s", error)
