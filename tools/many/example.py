"""A folder to try it with: rendered clips, their table, and a workflow with the miniature model of the pack."""

import csv
import json
from pathlib import Path

from ei2_modules.demo import clips, scenes

from .. import ROOT
from ..demo import video_files
from .jobs import NEEDED, TABLE

TEMPLATE = ROOT / "workflows" / "00_demo_model.json"
RATE = 8  # frames a second
ROWS = (  # shape, colour, background, motion, what it shall show
    ("circle", "red", "blue", "slide", "a yellow circle moving on a blue background"),
    ("square", "green", "white", "arc", "a green star moving on a white background"),
    ("star", "yellow", "purple", "turn", "a yellow star moving on a green background"),
    ("triangle", "orange", "black", "grow", "a striped orange triangle moving on a black background"),
)


def write(folder: Path, frames: int = clips.FRAMES) -> str:
    """The folder, which must not be there yet, and what to do with it. Raises ValueError."""
    if folder.exists():
        raise ValueError(f"{folder} is there already: choose a new folder for the example.")
    folder.mkdir(parents=True)
    with (folder / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(NEEDED)
        table.writerows(_clip(folder, *row, frames) for row in ROWS)
    text = json.dumps(workflow(), indent=1, ensure_ascii=False)
    (folder / "workflow.json").write_text(text, encoding="utf-8")
    return (
        f"{folder} has {len(ROWS)} clips, {TABLE} and workflow.json. Now the same command with --server, not --example."
    )


def _clip(folder: Path, shape: str, colour: str, background: str, motion: str, edit: str, frames: int) -> tuple:
    scene = scenes.Scene((scenes.Thing(shape, colour),), background, light=(0.15, -0.1))
    clip = clips.moving(scene, motion, frames)
    images, _ = scenes.render(clip)
    name = f"{colour}_{shape}.mp4"
    video_files.write(folder / name, [video_files.picture(image) for image in images], RATE)
    return name, clips.clip_caption(clip), edit


def workflow() -> dict:
    """The template 00_demo_model with Load Video in the place of EI² Demo Clip."""
    template = json.loads(TEMPLATE.read_text(encoding="utf-8"))
    (clip,) = (node for node in template["nodes"] if node["type"] == "EI2DemoClip")
    captions = clip["outputs"][1]["links"]
    video, wire = template["last_node_id"] + 1, template["last_link_id"] + 1
    template["links"] = [link for link in template["links"] if link[0] not in captions]
    template["links"].append([wire, video, 0, clip["id"], 0, "VIDEO"])
    for slot in (slot for node in template["nodes"] for slot in node["inputs"] if slot["link"] in captions):
        slot["link"] = None  # the caption comes from the table
    template["nodes"].append(_load_video(video, wire, clip))
    clip.update(_video_components(clip, wire))
    template |= {"last_node_id": video, "last_link_id": wire}
    return template


def _load_video(number: int, wire: int, right: dict) -> dict:
    left, top = right["pos"]
    file = {"name": "file", "type": "COMBO", "widget": {"name": "file"}, "link": None}
    upload = {"name": "upload", "type": "IMAGEUPLOAD", "widget": {"name": "upload"}, "link": None}
    return {
        "id": number, "type": "LoadVideo", "pos": [left - 340, top], "size": [300, 290], "flags": {}, "order": 0,
        "mode": 0, "inputs": [file, upload], "outputs": [{"name": "VIDEO", "type": "VIDEO", "links": [wire]}],
        "properties": {}, "widgets_values": ["red_circle.mp4", "image"],
    }  # fmt: skip


def _video_components(clip: dict, wire: int) -> dict:
    images = {**clip["outputs"][0], "name": "images"}
    others = [{"name": name, "type": kind, "links": None} for name, kind in (("audio", "AUDIO"), ("fps", "FLOAT"))]
    slot = {"name": "video", "type": "VIDEO", "link": wire}
    return {
        "type": "GetVideoComponents", "inputs": [slot], "outputs": [images, *others],
        "properties": {}, "widgets_values": [],
    }  # fmt: skip
