"""Another pack, imported by the host's own loader into this process, and its nodes."""

import asyncio
import logging
from pathlib import Path

from tools.server.in_process import host


def load(path: Path) -> None:
    """Raises RuntimeError with the loader's reason."""
    told, log = _Told(), logging.getLogger()
    log.addHandler(told)
    try:
        loop = asyncio.new_event_loop()
        host("server").PromptServer(loop)  # some packs want it while they are imported
        fine = loop.run_until_complete(host("nodes").load_custom_node(str(path)))
    finally:
        log.removeHandler(told)
    if not fine:
        raise RuntimeError(told.last_line.replace(str(path), path.name))


class _Told(logging.Handler):
    """The loader logs why it does not load a pack: the traceback of an import, or a warning."""

    last_line = "no reason given"

    def __init__(self):
        super().__init__(logging.WARNING)

    def emit(self, record):
        if record.module == "nodes" and not record.getMessage().startswith("Cannot import"):  # after the traceback
            self.last_line = record.getMessage().strip().splitlines()[-1]


def node(name: str, **inputs) -> tuple:
    """Execute a node, of either of the host's two kinds, and give its outputs."""
    known = host("nodes").NODE_CLASS_MAPPINGS
    if name not in known:
        raise LookupError(f"this version has no node {name}")
    kind = known[name]
    if hasattr(kind, "define_schema"):
        return kind.execute(**inputs).args
    return getattr(kind(), kind.FUNCTION)(**inputs)
