"""The demo without a checkpoint: the template 00_demo_model, and more clips than it has from its inverted latent.

The template's own nodes from there on, sampler, decoder and figures, are copied for the reconstruction and for every
further edit. Clips are told apart by the titles of their nodes.
"""

import json
import math
import re

from PIL import Image

from ei2_modules.demo import vocabulary

from .. import ROOT
from ..server.api_prompt import ALWAYS_TUNE, find, find_id, to_prompt
from ..server.comfy_server import Server
from ..server.in_process import pack_alone
from . import video_files

pictures = pack_alone("nodes.host.side_by_side")

WORKFLOW = ROOT / "workflows" / "00_demo_model.json"
ABOUT = """A rendered scene, edited with the miniature model that comes with the pack: the template 00_demo_model.
For a clip and a model of yours: python dev.py demo --checkpoint your-sd15-model.safetensors --clip your-clip.mp4"""
TEMPLATE_EDIT = "colour edit"  # the words are in the template
MORE_EDITS = {  # kind of Attention Control, and what the clip shall show
    "shape edit": ("shape", "a red star moving on a blue background"),
    "background edit": ("background", "a red circle moving on a green background"),
    "style edit": ("style", "a red circle moving on a blue background at night"),
}
BRANCH = ("EI2Sampler", "VAEDecode", "EI2VideoMetrics")
SHOWN = ("EI2VideoMetrics", "SaveImage")
MOST_FRAMES = 64
RATE, SECONDS = 8, 5  # frames a second of the video, and how long it plays at least


def check(options) -> None:
    """Raises ValueError for what does not fit a rendered scene."""
    if options.caption is not None or options.size is not None:
        raise ValueError("--caption and --size are for a real clip: they need --checkpoint or --clip.")
    if not 1 <= options.frames <= MOST_FRAMES:
        raise ValueError(f"--frames is {options.frames}: the rendered scene has 1 to {MOST_FRAMES}.")
    vocabulary.tokenize(re.sub(r"[()]|:[\d.]+", "", options.prompt or ""))  # without weights, as in (red:1.3)


def make_prompt(options, server: Server) -> dict:
    """The template with every clip's frames saved, in the order of the rows. A --prompt is the only edit."""
    template = load_template(server)
    fill_in(template, options)
    name, more = (TEMPLATE_EDIT, MORE_EDITS) if options.prompt is None else ("edit", {})
    for kind in BRANCH:
        template[find_id(template, kind)]["_meta"] = {"title": name}
    clip, decoder = find_id(template, "EI2DemoClip"), find_id(template, "VAEDecode")
    prompt = {**template, "caption": node("PreviewAny", "caption", source=[clip, 1]), **saved("source", clip)}
    inverted = find(template, "EI2InvertVideo")["positive"]  # only the same text leads back
    prompt |= branch(template, "reconstruction", positive=inverted, cfg=1.0, control=None) | saved(name, decoder)
    for name, (kind, text) in more.items():
        if kind == "shape":
            prompt |= carried_edit(template, name, text)
        else:
            prompt |= further_edit(template, name, kind, text)
    return prompt


def load_template(server: Server) -> dict:
    """The template as it is, as a prompt for this server."""
    return to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.request("/object_info"))


def fill_in(template: dict, options) -> None:
    """What the options say, in the template's own nodes."""
    find(template, "EI2DemoClip")["frames"] = options.frames
    find(template, "EI2OneShotTune").update(ALWAYS_TUNE)
    if options.steps is not None:
        find(template, "EI2OneShotTune")["steps"] = options.steps
    if options.prompt is not None:
        find(template, "EI2PromptEdit")["prompt"] = options.prompt
    if options.kind is not None:
        find(template, "EI2AttentionControl")["kind"] = options.kind


def further_edit(template: dict, name: str, kind: str, text: str) -> dict:
    words, control = f"{name} words", f"{name} control"
    edit = {**find(template, "EI2PromptEdit"), "prompt": text}
    chosen = {**find(template, "EI2AttentionControl"), "kind": kind, "prompt_edit": [words, 2]}
    nodes = {words: node("EI2PromptEdit", name, **edit), control: node("EI2AttentionControl", name, **chosen)}
    return nodes | branch(template, name, positive=[words, 1], control=[control, 0])


def carried_edit(template: dict, name: str, text: str) -> dict:
    """An edit of shape: one frame of it is carried through the clip, and sampled again from part of the way."""
    first = f"{name}, first pass"
    ids = {kind: find_id(template, kind) for kind in ("EI2DemoClip", "VAEEncode", "EI2InvertVideo")}
    carry = {"images": [f"{first} VAEDecode", 0], "source": [ids["EI2DemoClip"], 0], "mask": [ids["EI2DemoClip"], 2]}
    encode = find(template, "VAEEncode") | {"pixels": [f"{name} carried", 0]}
    invert = find(template, "EI2InvertVideo") | {"latents": [f"{name} latents", 0], "positive": [f"{first} words", 1]}
    again = {"positive": [f"{first} words", 1], "latent": [f"{name} inverted", 0], "strength": 0.4, "control": None}
    nodes = {i: n for i, n in further_edit(template, first, "shape", text).items() if n["class_type"] not in SHOWN}
    return {
        **nodes,
        f"{name} carried": node("EI2CarryKeyFrame", name, **carry, key_frame=-1, grow=0.05),
        f"{name} latents": node("VAEEncode", name, **encode),
        f"{name} inverted": node("EI2InvertVideo", name, **invert),
        **branch(template, name, **again),
    }


def node(class_type: str, title: str, **inputs) -> dict:
    return {"class_type": class_type, "inputs": inputs, "_meta": {"title": title}}


def saved(name: str, source: str) -> dict:
    """A node that keeps the frames a node gives first."""
    return {f"{name} frames": node("SaveImage", name, images=[source, 0], filename_prefix="demo")}


def branch(template: dict, name: str, **sampler) -> dict:
    """The nodes of BRANCH once more, with other inputs of the sampler, and the frames saved."""
    ids = {find_id(template, kind): f"{name} {kind}" for kind in BRANCH}
    copies = {}
    for old, new in ids.items():
        inputs = {key: relinked(value, ids) for key, value in template[old]["inputs"].items()}
        copies[new] = node(template[old]["class_type"], name, **inputs)
    inputs = copies[f"{name} EI2Sampler"]["inputs"] | sampler
    copies[f"{name} EI2Sampler"]["inputs"] = {key: value for key, value in inputs.items() if value is not None}
    return copies | saved(name, f"{name} VAEDecode")


def relinked(value, ids: dict[str, str]):
    return [ids.get(value[0], value[0]), value[1]] if isinstance(value, list) else value


def keep(options, server: Server, prompt: dict, outputs: dict) -> dict:
    """Writes edit.mp4, all clips side by side, and sheet.png, a row a clip; gives what the demo reports."""
    files = titled(prompt, outputs, "SaveImage", "images")
    clips = [[Image.open(server.output(file)).convert("RGB") for file in clip] for clip in files.values()]
    labels = [f"{name}\n{text}" for name, text in words(prompt, outputs, files).items()]
    video, sheet = options.out / "edit.mp4", options.out / "sheet.png"
    pictures.contact_sheet(clips, cell=128, labels=labels).save(sheet)
    together = pictures.side_by_side(clips, labels)
    video_files.write(video, together * math.ceil(SECONDS * RATE / len(together)), RATE)
    figures = {
        name: {key: round(value, 4) for key, value in found.items()}
        for name, (found,) in titled(prompt, outputs, "EI2VideoMetrics", "metrics").items()
    }
    return {"video": str(video), "sheet": str(sheet), "frames": len(together), "metrics": figures}


def titled(prompt: dict, outputs: dict, class_type: str, kind: str) -> dict:
    """What the nodes of a class gave, by their titles."""
    return {n["_meta"]["title"]: outputs[i][kind] for i, n in prompt.items() if n["class_type"] == class_type}


def words(prompt: dict, outputs: dict, names) -> dict[str, str]:
    """What every clip was to show: the caption, where nothing else was said."""
    (caption,) = outputs["caption"]["text"]
    samplers = {n["_meta"]["title"]: n["inputs"] for n in prompt.values() if n["class_type"] == "EI2Sampler"}
    sources = {name: prompt[inputs["positive"][0]]["inputs"] for name, inputs in samplers.items()}
    said = {name: inputs.get("prompt", inputs.get("text")) for name, inputs in sources.items()}
    return {name: said.get(name) or caption for name in names}
