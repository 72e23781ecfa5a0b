"""Redraws docs/graph.png and the picture beside every template, from a small run in the real editor."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import demo
import editor
from comfy_server import ROOT, Server
from PIL import Image

SMALL = {"ImageScale": {"width": 64, "height": 64}, "EI2OneShotTune": {"steps": 20}}


def main() -> None:
    with Server(demo.CACHE / "pictures") as server:
        demo.stage(server, demo.TEMPLATE_NAMES, demo.random_checkpoint(), demo.bunny(), 8)
        with editor.editor(server, 2400, 1200) as page:
            for path in sorted((ROOT / "workflows").glob("*.json")):
                draw(page, path)


def draw(page, path: Path) -> None:
    target = ROOT / "docs" / "graph.png"
    editor.load(page, json.loads(path.read_text(encoding="utf-8")))
    editor.run(page, SMALL)
    editor.picture(page, target)
    thumbnail = Image.open(target).convert("RGB")
    thumbnail.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    thumbnail.save(path.with_suffix(".jpg"), quality=85)


if __name__ == "__main__":
    main()
