"""Runs the demo and tells where its files are."""

import json
import shutil
import sys
import time

from ..server.comfy_server import CACHE, Failure, Server
from . import clip, scene
from .options import parse, real_clip
from .progress import Watcher


def main() -> int:
    options = parse()
    demo = clip if real_clip(options) else scene
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


def report(result: dict, seconds: dict[str, float]) -> None:
    """In words, and as one line for programs."""
    print(f"Video: {result['video']}\nPicture of all frames: {result['sheet']}")
    print("Seconds: " + ", ".join(f"{stage} {value}" for stage, value in seconds.items()))
    print(json.dumps({**result, "seconds": seconds}))


if __name__ == "__main__":
    sys.exit(main())
