"""The newest ComfyUI editor, beside the one that the pinned host brings."""

import subprocess
import sys
import zipfile
from pathlib import Path

from .comfy_server import CACHE

VERSION = "1.58.1"
PACKAGE = "comfyui_frontend_package"


def newest() -> Path | None:
    """The folder of its pages, for `--front-end-root`: fetched once into the cache; None where it cannot be fetched."""
    folder = CACHE / f"frontend-{VERSION}"
    pages = folder / PACKAGE / "static"
    if not (pages / "index.html").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        fetch = ["-m", "pip", "download", f"{PACKAGE}=={VERSION}", "--no-deps", "--quiet", "--dest", str(folder)]
        if subprocess.run([sys.executable, *fetch], capture_output=True).returncode:
            return None
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as file:
            file.extractall(folder)
        wheel.unlink()
    return pages
