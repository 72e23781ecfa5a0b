"""Redraws docs/graph.png and the picture beside every template, from a small run in the real editor."""

import json
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import demo
import editor
import video_files
from comfy_server import ROOT, Server, place
from PIL import Image

SMALL = {"ImageScale": {"width": 64, "height": 64}, "EI2OneShotTune": {"steps": 20}}


def main() -> None:
    with Server(Path(os.environ["EI2_CACHE"]) / "pictures") as server:
        # The names the templates hold.
        place(demo.random_checkpoint(), server.folder / "models/checkpoints/v1-5-pruned-emaonly-fp16.safetensors")
        video_files.cut(demo.bunny(), server.folder / "input" / "my_clip.mp4", 8)
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
