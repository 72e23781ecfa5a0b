"""Edit a short clip on a real ComfyUI server, with a workflow that ships with the pack, and show the result.

Without --checkpoint and --clip: a rendered moving scene, with the miniature model that comes with the pack.
"""

import argparse
from pathlib import Path

from ei2_modules.attention.control.options import KINDS

from . import clip, scene


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py demo", description=__doc__)
    parser.add_argument("--checkpoint", type=existing, help="an SD1.x checkpoint of yours, for a real clip")
    parser.add_argument("--clip", type=existing, help="a video of yours; none, with --checkpoint: a rabbit")
    parser.add_argument("--caption", help="what a real clip shows; none: the workflow's own words, of the rabbit")
    parser.add_argument("--prompt", help="what the edit shall show; none: the workflow's words, or several edits")
    parser.add_argument("--kind", choices=KINDS, help="of that edit; none: appearance, or of a real clip style")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, help="of a real clip, square; default 512 (256 on a CPU, 64 without model)")
    parser.add_argument("--steps", type=int, help="tuning steps; default: what suits the model")
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the results, default: demo")
    options = parser.parse_args(arguments)
    options.out = options.out.resolve()
    check = clip.complete if real_clip(options) else scene.check
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
