"""The packs in a folder: their versions, and which cases are for them."""

import re
from dataclasses import dataclass
from pathlib import Path

CASES = Path(__file__).with_name("cases")
DOWNLOADED = re.compile(r"-(main|master)$")  # what GitHub's archives append


@dataclass(frozen=True)
class Found:
    """A pack, as it lies in the folder."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def version(self) -> str:
        """What its pyproject.toml says."""
        project = self.path / "pyproject.toml"
        text = project.read_text(encoding="utf-8") if project.is_file() else ""
        table = text.partition("[project]")[2].partition("\n[")[0]
        found = re.search(r"^version\s*=\s*[\"']([^\"']+)", table, re.MULTILINE)
        return found[1] if found else "none given"

    @property
    def cases(self) -> list[Path]:
        """For any pack, and its own."""
        plain = DOWNLOADED.sub("", self.name.lower().replace("_", "-")).removeprefix("comfyui-")
        own = CASES / f"{plain.replace('-', '_')}.py"
        return [CASES / "any.py", *([own] if own.is_file() else [])]


def packs(folder: Path) -> list[Found]:
    """Raises ValueError for a folder without any."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: give the one with the packs, such as ComfyUI's custom_nodes.")
    found = [Found(path.resolve()) for path in sorted(folder.iterdir()) if (path / "__init__.py").is_file()]
    if not found:
        raise ValueError(f"{folder} holds no pack: a folder with an __init__.py for each is expected.")
    return [pack for pack in found if not _is_ours(pack.path)]


def _is_ours(path: Path) -> bool:
    return (path / "ei2_modules").is_dir()
