"""What is seen of the borders between the windows of a long clip, with the miniature model.

    python dev.py bench seams [--frames 40] [--clips 4] [--ways whole fixed ...]

Each clip is tuned once (EI² r = 2, on random windows of it), then inverted and edited with it cut in several ways. What
an edit misses of the true edited clip is compared from frame to frame: jump is the mean change of that error over the
picture (0 to 255), move the change of the object's displacement (px). Both are given too for the pairs of frames with a
border between them, of the windows in their first places (plain) or half a window on (shifted), divided by all others.
"whole" has no borders: its figures there are what chance gives.
"""

import argparse
import math
import sys
from dataclasses import replace

import torch

from ei2_modules.demo import clips, scenes
from tools.server.in_process import host, pack

from ..common import report
from ..quality import cases as q
from ..quality.measures import Truth
from ..quality.run import Editor

stock = host("comfy.context_windows")
windows, host_windows = pack("ei2_modules.attention.windows"), pack("nodes.host.inflating.windows")
config, sampling = pack("ei2_modules.config"), pack("nodes.host.sampling.run")
METHOD, KINDS, SEED = "EI² r=2", ("colour", "style"), 33


def _fixed(frames: int, handler, model_options) -> list[list[int]]:
    return windows.windows(frames, handler.context_length)


def _host(schedule, fuse: str, overlap: int, ratio: int | None):
    handler = stock.IndexListContextHandler(schedule, stock.get_matching_fuse_method(fuse), config.WINDOW, overlap)
    return host_windows.Windows.like(handler, ratio)


WAYS = {
    "whole": lambda: host_windows.Windows(None, length=sys.maxsize),
    "shifting, anchors": lambda: None,  # the pack's own
    "shifting": lambda: host_windows.Windows(None),
    "fixed, anchors": lambda: _host(stock.ContextSchedule("fixed", _fixed), "flat", 0, 2),
    "fixed": lambda: _host(stock.ContextSchedule("fixed", _fixed), "flat", 0, None),
    "overlap 4, anchors": lambda: _host(stock.get_matching_context_schedule("standard_static"), "pyramid", 4, 2),
}


def long_case(case: q.Case, frames: int) -> q.Case:
    """The same motion, taken in more frames."""

    def slow(clip: tuple) -> tuple:
        motion = case.name.split(" ", 1)[1].removesuffix(", backwards")
        found = clips.moving(clip[0], motion, frames, backwards="backwards" in case.name)
        return tuple(replace(scene, background=clip[0].background, style=clip[0].style) for scene in found)

    return replace(case, clip=slow(case.clip), edits={kind: slow(clip) for kind, clip in case.edits.items()})


def steps_of_error(images, truth: Truth) -> dict[str, torch.Tensor]:
    """From each frame to the next."""
    error = images - truth.images
    readings = [truth.read(image, i) for i, image in enumerate(images)]
    place = torch.tensor([[r.x, r.y] for r in readings]) - truth.track
    return {
        "jump": 255 * (error[1:] - error[:-1]).abs().mean(dim=(1, 2, 3)),
        "move": scenes.SIZE * (place[1:] - place[:-1]).norm(dim=1),
    }


def at_borders(steps: torch.Tensor, borders: set[int]) -> float:
    """Mean of the steps into a border's frame over the mean of all others."""
    among = torch.tensor([i + 1 in borders for i in range(len(steps))])
    return (steps[among].nanmean() / steps[~among].nanmean()).item()


def edits(editor: Editor, case: q.Case, settings: q.Settings, ways: list[str]):
    """(way, kind, images) of one clip."""
    latents = editor.vae.encode(scenes.render(list(case.clip))[0])
    model = editor.inflated(METHOD, SEED)
    model = editor.tuned(model, latents, case.caption, settings.steps, settings.learning_rate, SEED)
    for way in ways:
        cut, handler = model.clone(), WAYS[way]()
        if handler is not None:
            cut.model_options["context_handler"] = handler
        noise, _ = sampling.invert(
            cut, latents, editor.nothing, editor.grid(settings.ddim_steps), 0, lambda *args: None
        )
        for kind in KINDS:
            made = editor.sample(cut, noise, editor.encode(case.prompt(kind)), settings.guidance, settings)
            yield way, kind, editor.decode(made)


def measure(values) -> list[dict]:
    editor, settings, found = Editor(), q.Settings(ddim_steps=values.ddim_steps, steps=values.steps), []
    layouts = [windows.windows(values.frames, config.WINDOW, turn) for turn in (0, 1)]
    borders = [{window[0] for window in layout} - {0} for layout in layouts]
    for case in q.cases(values.clip_seed)[: values.clips]:
        case = long_case(case, values.frames)
        truths = {kind: Truth(case.clip, case.edits[kind]) for kind in KINDS}
        for way, kind, images in edits(editor, case, settings, values.ways):
            row = {"clip": case.name, "way": way, "kind": kind}
            for name, steps in steps_of_error(images, truths[kind]).items():
                row |= {name: steps.nanmean().item(), f"{name} plain": at_borders(steps, borders[0]),
                        f"{name} shifted": at_borders(steps, borders[1])}  # fmt: skip
            found.append(row | {"error": 255 * (images - truths[kind].images).abs().mean().item()})
            print(".", end="", flush=True)
    return found


def table(found: list[dict], ways: list[str]) -> list[dict]:
    """Mean over clips of the means over edits, with half a 95 % interval by the normal rule."""
    rows = []
    for way in ways:
        row = {"windows": way}
        for name in [key for key in found[0] if key not in ("clip", "way", "kind")]:
            of_clips: dict[str, list] = {}
            for r in found:
                if r["way"] == way and math.isfinite(r[name]):
                    of_clips.setdefault(r["clip"], []).append(r[name])
            means = torch.tensor([sum(v) / len(v) for v in of_clips.values()])
            spread = 1.96 * means.std().item() / len(means) ** 0.5 if len(means) > 1 else math.nan
            row[name] = f"{means.mean().item():.2f} ± {spread:.2f}"
        rows.append(row)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=40)
    options.add_argument("--clips", type=int, default=4)
    options.add_argument("--clip-seed", type=int, default=q.CLIP_SEED)
    options.add_argument("--steps", type=int, default=100, help="of tuning")
    options.add_argument("--ddim-steps", type=int, default=15)
    options.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    values = report.parse(options)
    with torch.inference_mode():
        found = measure(values)
    note = (
        f"{values.clips} clips of {values.frames} frames, windows of at most {config.WINDOW}, {len(KINDS)} edits each"
    )
    report.publish(table(found, values.ways), values, (note,))


if __name__ == "__main__":
    main()
