"""Redraws the pictures of the help pages, and docs/*.png of the editor, in the real editor.

Names after the command, such as 00_demo_model or EI2NullText: only these templates, and nodes that are in no template.
The templates' own pictures are made by `python -m tools.demo.thumbnails`.
"""

import json
import shutil
import sys
from pathlib import Path

from PIL import Image

from .. import ROOT
from ..server import editor
from ..server.comfy_server import CACHE, Server
from . import template_files

GUIDE = ("01_first_edit", ROOT / "docs" / "graph.png")  # the template that the guide shows
SHEET = ("08_stable_video_demo", ROOT / "docs" / "stable_video.png")  # what EI² Compare of a template makes
BLUEPRINT = ("EI² one-shot edit", ROOT / "docs" / "blueprint.png")
EMPTY = {"nodes": [], "links": [], "version": 0.4}
SMALL = {"EI2LoadClip": {"long_side": 64}, "EI2OneShotTune": {"steps": 20}}
CHANGES = {"00_demo_model": {}, SHEET[0]: {}}  # others: SMALL

HELP = {  # which template shows a node for its help page
    "00_demo_model": ["EI2LoadDemoModel", "EI2DemoClip", "EI2InflateUNet", "EI2OneShotTune", "EI2InvertVideo",
                      "EI2Sampler", "EI2VideoMetrics", "EI2PromptEdit", "EI2AttentionControl", "EI2Compare"],
    "01_first_edit": ["EI2LoadClip", "EI2SaveWeights"],
}  # fmt: skip
ALONE = (  # in no template, or muted
    "EI2LoadWeights",
    "EI2DDIMSampler",
    "EI2EditGuider",
    "EI2AttentionMaps",
    "EI2NullText",
    "EI2OpticalFlow",
    "EI2FitAtlas",
    "EI2SaveAtlas",
    "EI2LoadAtlas",
    "EI2InspectAtlas",
    "EI2ReplaceAtlas",
    "EI2SeveralEdits",
    "EI2AtlasKeyFrames",
    "EI2EditKeyFrames",
    "EI2AggregateAtlas",
    "EI2RenderAtlas",
    "EI2ImportNLA",
    "EI2CarryKeyFrame",
)


def main() -> None:
    templates = [*HELP, SHEET[0]]
    names = sys.argv[1:] or [*templates, *ALONE, BLUEPRINT[0]]
    with Server(CACHE / "pictures") as server:
        template_files.stage(server, 24)
        with editor.editor(server, 2400, 1200) as page:
            for name in (name for name in templates if name in names):
                server.request("/free", {"free_memory": True})  # or what templates share would not be run again
                draw(page, ROOT / "workflows" / f"{name}.json")
            for node in (node for node in ALONE if node in names):
                editor.load(page, EMPTY)
                page.evaluate("type => app.graph.add(LiteGraph.createNode(type))", node)
                draw_node(page, node)
            if BLUEPRINT[0] in names:
                draw_blueprint(page)


def draw(page, path: Path) -> None:
    shot = CACHE / "pictures" / "graph.png"
    editor.load(page, json.loads(path.read_text(encoding="utf-8")))
    for done in ("ei2", "ei2_atlas"):  # or the tuning would be found done, and the fit
        shutil.rmtree(CACHE / "pictures" / "output" / done, ignore_errors=True)
    faults = editor.run(page, CHANGES.get(path.stem, SMALL), seconds=1200)
    if faults:
        raise SystemExit(f"{path.stem}: {faults[0]}")
    editor.picture(page, shot)
    for node in HELP.get(path.stem, ()):
        draw_node(page, node)
    if path.stem == SHEET[0]:
        sheets = (CACHE / "pictures" / "output").glob("EI2_compare_sheet_*.png")
        Image.open(max(sheets, key=lambda sheet: sheet.stat().st_mtime)).convert("RGB").save(SHEET[1], optimize=True)
    if path.stem == GUIDE[0]:
        GUIDE[1].write_bytes(shot.read_bytes())


def draw_blueprint(page) -> None:
    editor.load(page, EMPTY)
    editor.put_in(page, BLUEPRINT[0])
    draw_node(page, page.evaluate("app.graph._nodes[0].type"), BLUEPRINT[1])


def draw_node(page, node: str, path: Path | None = None) -> None:
    """For its help page; few colours are enough."""
    path = path or ROOT / "web" / "docs" / f"{node}.png"
    editor.picture(page, path, node)
    Image.open(path).convert("RGB").quantize(128).save(path, optimize=True)


if __name__ == "__main__":
    main()
