"""Redraws the picture beside every template, and docs/graph.png, from a run in the real editor.

Names after the command, such as 00_demo_model: only these templates.
"""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import demo_clip
import editor
from comfy_server import CACHE, ROOT, Server
from PIL import Image

README = (demo_clip.WORKFLOW.stem, ROOT / "docs" / "graph.png")  # the template that the README shows
SMALL = {demo_clip.WORKFLOW.stem: {"ImageScale": {"width": 64, "height": 64}, "EI2OneShotTune": {"steps": 20}}}


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    shutil.rmtree(CACHE / "pictures" / "output" / "ei2", ignore_errors=True)  # or the tuning would be found done
    with Server(CACHE / "pictures") as server:
        if demo_clip.WORKFLOW.stem in names:
            demo_clip.stage(server, demo_clip.TEMPLATE_NAMES, demo_clip.random_checkpoint(), demo_clip.bunny(), 8)
        with editor.editor(server, 2400, 1200) as page:
            for name in names:
                draw(page, ROOT / "workflows" / f"{name}.json")


def draw(page, path: Path) -> None:
    shot = CACHE / "pictures" / "graph.png"
    editor.load(page, json.loads(path.read_text(encoding="utf-8")))
    faults = editor.run(page, SMALL.get(path.stem, {}))
    if faults:
        raise SystemExit(f"{path.stem}: {faults[0]}")
    editor.picture(page, shot)
    thumbnail = Image.open(shot).convert("RGB")
    thumbnail.thumbnail((1024, 1024), Image.Resampling.LANCZOS)
    thumbnail.save(path.with_suffix(".jpg"), quality=85)
    if path.stem == README[0]:
        README[1].write_bytes(shot.read_bytes())


if __name__ == "__main__":
    main()
