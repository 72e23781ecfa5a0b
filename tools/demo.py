"""Edit a short clip on a real ComfyUI server, with a workflow that ships with the pack, and show the result.

Without --checkpoint and --clip: a rendered moving scene, with the miniature model that comes with the pack.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import demo_clip
import demo_scene
from comfy_server import CACHE, Failure, Server
from progress import Watcher


def main() -> int:
    options = parse()
    demo = demo_clip if real_clip(options) else demo_scene
    print(demo.ABOUT, flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(CACHE / "demo" / "output", ignore_errors=True)  # of earlier demos: tuned files are large
    began = time.monotonic()
    try:
        with Server(CACHE / "demo") as server:
            prompt = demo.make_prompt(options, server)
            seconds = {"start": time.monotonic() - began}
            with Watcher(prompt, seconds) as watcher:
                outputs = server.run(prompt, watcher)
            result = demo.keep(options, server, prompt, outputs)
        seconds["total"] = time.monotonic() - began
    except (Failure, ValueError) as error:
        print(f"\nThe demo stopped: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    report(result, {name: round(value, 1) for name, value in seconds.items()})
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    parser.add_argument("--checkpoint", type=existing, help="an SD1.x checkpoint of yours, for a real clip")
    parser.add_argument("--clip", type=existing, help="a video of yours; none, with --checkpoint: a rabbit")
    parser.add_argument("--caption", help="what a real clip shows; none: the workflow's own words, of the rabbit")
    parser.add_argument("--prompt", help="what the edit shall show; none: the workflow's words, or several edits")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, help="of a real clip, square; default 512 (256 on a CPU, 64 without model)")
    parser.add_argument("--steps", type=int, help="tuning steps; default: what suits the model")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results, default: demo")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    check = demo_clip.complete if real_clip(options) else demo_scene.check
    try:
        check(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def real_clip(options: argparse.Namespace) -> bool:
    return bool(options.checkpoint or options.clip)


def existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"there is no file {path}")
    return path.resolve()


def report(result: dict, seconds: dict[str, float]) -> None:
    """In words, and as one line for programs."""
    print(f"Video: {result['video']}\nPicture of all frames: {result['sheet']}")
    print("Seconds: " + ", ".join(f"{stage} {value}" for stage, value in seconds.items()))
    print(json.dumps({**result, "seconds": seconds}))


if __name__ == "__main__":
    sys.exit(main())
