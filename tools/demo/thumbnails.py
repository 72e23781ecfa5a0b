"""Redraws the picture of every template: the template itself, run with the miniature model on a rendered clip.

Names after the command, such as 00_demo_model: only these. A row a clip, the source first, as many frames as rows.
"""

import json
import sys

from PIL import Image

from .. import ROOT
from ..server import editor
from ..server.api_prompt import ALWAYS_TUNE, find_id
from ..server.comfy_server import CACHE, Server
from ..server.in_process import pack_alone
from . import template_files
from .scene import RATE, node

pictures = pack_alone("nodes.host.side_by_side")

WORKFLOWS = ROOT / "workflows"
SIDE, GAP = 480, 4
MADE_BY = "\nDrawn by the miniature model of the pack"
MODEL, CLIP = "miniature model", "rendered clip"  # ids of nodes
INSTEAD = {  # of a node's output: one of the miniature model, or of the clip
    ("CheckpointLoaderSimple", 0): [MODEL, 0],
    ("CheckpointLoaderSimple", 1): [MODEL, 1],
    ("CheckpointLoaderSimple", 2): [MODEL, 2],
    ("ControlNetLoader", 0): [MODEL, 3],
    ("EI2LoadClip", 0): [CLIP, 0],
    ("EI2LoadClip", 1): RATE,
    ("PrimitiveStringMultiline", 0): [CLIP, 1],  # the caption
}
SHOWING = ("EI2Compare", "CreateVideo")
FITTING = {  # widgets for pictures of 64x64
    "EI2OneShotTune": {"steps": 100, "learning_rate": 1e-3, **ALWAYS_TUNE},
    "EI2InvertVideo": {"steps": 25},
    "EI2Sampler": {"cfg": 3.0},
    "EI2EditKeyFrames": {"cfg": 5.0, "resolution": 64},
    "EI2FitAtlas": {"motion": "affine"},
    "ImageScale": {"width": 20, "height": 20},
    "ImageCompositeMasked": {"x": 10, "y": 10},
}
EDITS = {  # the clip: shape, colour, background, motion, frames; the kind of edit; the prompt. Others stay as they are
    "01_first_edit": ("star yellow purple slide 8", "style", "a yellow star moving on a purple background at night"),
    "02_tune_once": ("square white blue turn 8", "background", "a white square moving on a green background"),
    "03_masked_edit": ("circle red green arc 8", "appearance", "a striped red circle moving on a green background"),
    "04_controlnet": ("cross white blue slide 8", "style", "a white cross moving on a blue background in pastel"),
    "05_long_clip": ("circle purple yellow arc 24", "appearance", "a green circle moving on a yellow background"),
    "06_compare": ("circle red blue slide 8", "appearance", "a yellow circle moving on a blue background"),
    "07_sdxl": (
        "triangle orange black turn 8",
        "style",
        "an orange triangle moving on a black background as an outline",
    ),
    "08_stable_video": ("circle red purple slide 8", "", "a striped green circle on a black background"),
    "09_paint_on_the_atlas": ("circle purple blue slide 8", "", ""),
    "10_edit_in_a_minute": ("circle orange black slide 8", "shape", "an orange star moving on a black background"),
    "11_new_shape": ("circle red blue slide 8", "shape", "a red star moving on a blue background"),
}


def main() -> None:
    names = sys.argv[1:] or sorted(path.stem for path in WORKFLOWS.glob("*.json"))
    with Server(CACHE / "pictures") as server:
        template_files.stage(server, 24)
        found = prompts(server, names)
        graphs = {name: miniature(prompt, *EDITS[name]) if name in EDITS else prompt for name, prompt in found.items()}
        shown = {name: compared(name, graph) for name, graph in graphs.items()}  # of all before the first runs
        for name, graph in graphs.items():
            thumbnail(run(server, graph, shown[name])).save(WORKFLOWS / f"{name}.jpg", quality=90)
            print(name, flush=True)


def prompts(server: Server, names: list[str]) -> dict[str, dict]:
    """What the editor would send of each template, of nodes that are muted too."""
    found = {}
    with editor.editor(server) as page:
        for name in names:
            editor.load(page, json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))
            found[name] = page.evaluate(PROMPT)
    return found


PROMPT = "app.graph._nodes.forEach(n => n.mode = 0), app.graphToPrompt().then(prompt => prompt.output)"


def miniature(prompt: dict, clip: str, kind: str, text: str) -> dict:
    """The same graph with other loaders, words and sizes."""
    shape, colour, background, motion, frames = clip.split()
    clip = {"shape": shape, "colour": colour, "background": background, "motion": motion, "frames": int(frames)}
    words = {"EI2AttentionControl": {"kind": kind}, "EI2PromptEdit": {"caption": [CLIP, 1], "prompt": text}}
    graph = {MODEL: node("EI2LoadDemoModel", ""), CLIP: node("EI2DemoClip", "", **clip)}
    for i, old in prompt.items():
        name = old["class_type"]
        inputs = {key: relinked(prompt, value) for key, value in old["inputs"].items()}
        if name == "CLIPTextEncode" and isinstance(inputs["text"], str) and inputs["text"]:
            inputs["text"] = text
        graph[i] = node(name, "", **inputs | FITTING.get(name, {}) | words.get(name, {}))
    return graph


def relinked(prompt: dict, value):
    """An input: what it reads, or what stands for that."""
    if not isinstance(value, list):
        return value
    source = prompt[value[0]]
    if source["class_type"] == "EI2LoadWeights":  # its file is there only when the template has run
        return [find_id(prompt, "EI2OneShotTune"), 1]
    if source["class_type"] == "ImageToMask" and reads(prompt, source, "image") == "EI2LoadClip":
        return [CLIP, 2]
    return INSTEAD.get((source["class_type"], value[1]), value)


def reads(prompt: dict, of: dict, name: str) -> str:
    """The class that an input comes from."""
    return prompt[of["inputs"][name][0]]["class_type"]


def compared(template: str, prompt: dict) -> list[list]:
    """Links to the clips that it compares, each once; else to its source, and what it makes a video of.

    Ends the program for a template that shows fewer than two.
    """
    ends = {name: [n["inputs"] for n in prompt.values() if n["class_type"] == name] for name in SHOWING}
    shown = [inputs[name] for inputs in ends["EI2Compare"] for name in "abcd" if name in inputs]
    shown = shown or [[CLIP, 0], *(inputs["images"] for inputs in ends["CreateVideo"])]
    found = list({tuple(link): link for link in shown}.values())
    if len(found) < 2:
        raise SystemExit(
            f"{template} shows {len(found)} clip, and its picture needs 2 at least: put EI² Compare or Create Video "
            "behind the edit."
        )
    return found


def run(server: Server, prompt: dict, shown: list[list]) -> list[list[Image.Image]]:
    """The frames of these clips."""
    kept = {f"row {i}": node("SaveImage", "", images=link, filename_prefix="row") for i, link in enumerate(shown)}
    outputs = server.run(without_ends(prompt, server) | kept)
    files = [outputs[name]["images"] for name in kept]
    return [[Image.open(server.output(file)).convert("RGB") for file in clip] for clip in files]


def without_ends(prompt: dict, server: Server) -> dict:
    """Without the nodes that show or keep something, which nothing reads."""
    read = {value[0] for node in prompt.values() for value in node["inputs"].values() if isinstance(value, list)}
    ends = {name for name, info in server.object_info().items() if info["output_node"]}
    return {i: node for i, node in prompt.items() if i in read or node["class_type"] not in ends}


def thumbnail(rows: list[list[Image.Image]]) -> Image.Image:
    """A square: so many frames of each clip as there are clips, evenly over its time."""
    count = len(rows)
    cell = (SIDE - (count - 1) * GAP) // count
    shown = [[row[round(i * (len(row) - 1) / (count - 1))] for i in range(count)] for row in rows]
    sheet = pictures.contact_sheet(shown, cell, GAP)
    return pictures.below(sheet, pictures.label(MADE_BY, sheet.width, size=14))


if __name__ == "__main__":
    main()
