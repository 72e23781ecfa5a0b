"""Edits through a layered atlas, in every way, against EI² and Tune-A-Video, beside the true clips.

    python dev.py bench compare [--clips 6] [--edits colour style] [--seeds 0 1] [--steps 20] [--tuning 100]

Rendered clips of 64x64, whose object gets another colour (colour) or stripes (style), by the miniature model. Layered:
Fit Video Atlas with the true mask, key frames 0, 4 and 7 repainted from noise under a ControlNet, guidance 5. The four
published ways of it, and jointly by EI², with the default aggregation; the first way with the other aggregations; with
the middle frame as the only key frame; direct: the layer's picture through the model. EI² and Tune-A-Video: as in
`bench quality`, with its settings. Measures are its own too: of 255 or pixels. s: of one edit, with fit, tuning and
inversion, CPU time over threads. Means over clips; layered edits over seeds too, others are tuned with the first.
truth: what the true clip itself has. Slips: how far marks on the object move in its layer, where they should lie still.
"""

import argparse
import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from statistics import mean

import torch

from ei2_modules.atlas.options import PRESETS
from ei2_modules.demo import clips, scenes
from ei2_modules.motion.flow import flow_of
from tools.server.in_process import host, pack

from ..common import report
from ..quality.cases import METHODS, Case, Settings
from ..quality.measures import Truth, measure
from ..quality.run import Editor, editor, finite
from .layered import LAYERED, LayeredEditor, slip

EI2Error = pack("ei2_modules.errors").EI2Error  # the pack has its own of all modules

# Motion, shape, colour, background, the new colour. Chosen by the flow alone, before any edit was seen: the fit asks
# for 40 % of the pixels that agree both ways and refuses less than 15 %. The last one was refused by 0.2.0's flow.
CLIPS = (
    ("slide", "circle", "red", "purple", "yellow"),
    ("slide", "star", "red", "green", "white"),
    ("arc", "square", "purple", "blue", "orange"),
    ("grow", "circle", "red", "purple", "green"),
    ("turn", "square", "purple", "blue", "yellow"),
    ("turn", "star", "white", "yellow", "red"),
    ("slide", "triangle", "yellow", "red", "blue"),
)
KINDS = ("colour", "style")
TEXTURE = "striped"
# By what is tuned, or not: the methods of `bench quality` that edit with it.
VIDEO = {"EI² untuned": ("EI² untuned + control",), "EI² r=2": ("EI² r=2", "EI² + control"),
         "Tune-A-Video": ("Tune-A-Video",)}  # fmt: skip
COLUMNS = {"done": 1, "centroid_px": 1, "mae": 255, "outside_mae": 255, "warp_outside": 1, "warp_object": 1, "s": 1}
_truth = cache(Truth)


def case(motion: str, shape: str, colour: str, background: str, other: str) -> Case:
    """A clip and its edits."""
    scene = scenes.Scene((scenes.Thing(shape, colour),), background, light=(0.15, -0.1))  # as EI² Demo Clip has it
    clip = tuple(clips.moving(scene, motion))
    changes = {"colour": {"colour": other}, "style": {"texture": TEXTURE}}
    edits = {kind: tuple(s.change(**change) for s in clip) for kind, change in changes.items()}
    return Case(f"{motion}: {colour} {shape} on {background}, to {other}", clip, edits)


def on_black(target: tuple) -> str:
    """The words for a key frame: its layer is cut out before black, and does not move."""
    (thing, *_), *_ = (scene.things for scene in target)
    return scenes.caption(scenes.Scene((thing,), "black"))


def figures(images, source: tuple, target: tuple, kind: str, seconds: float = math.nan) -> dict:
    """COLUMNS of one edited clip, (n, h, w, 3)."""
    found = measure(images, _truth(source, target))
    found |= {"done": found[kind], "s": seconds}
    return {name: scale * found[name] for name, scale in COLUMNS.items()}


def layered(atlas: LayeredEditor, one: Case, values: argparse.Namespace) -> Iterator[dict]:
    """A row an edit, method and seed."""
    for kind in values.edits:
        prompt = on_black(one.edits[kind])
        for seed in values.seeds:
            for name in LAYERED:
                images, seconds = atlas.edit(name, prompt, seed, values.steps)
                yield row(one, kind, name, seed) | figures(images, one.clip, one.edits[kind], kind, seconds)


def video(by: Editor, one: Case, values: argparse.Namespace) -> Iterator[dict]:
    """The same of EI² and Tune-A-Video, tuned with the first seed."""
    settings, seed = Settings(steps=values.tuning, ddim_steps=values.ddim_steps), values.seeds[0]
    latents = by.vae.encode(scenes.render(list(one.clip))[0])
    for tuned, names in VIDEO.items():
        began, model = report.now(), by.inflated(tuned, seed)
        if METHODS[tuned].tuned:
            model = by.tuned(model, latents, one.caption, settings.steps, settings.learning_rate, seed)
        latent = by.inverted(model, latents, by.nothing, settings.ddim_steps)
        before = report.now() - began
        for name in names:
            for kind in values.edits:
                began, prompt = report.now(), one.prompt(kind)
                edited = by.edit(model, latent, one.caption, prompt, settings.guidance, name, kind)
                images = by.decode(edited)
                seconds = before + report.now() - began
                yield row(one, kind, name, seed) | figures(images, one.clip, one.edits[kind], kind, seconds)


def row(one: Case, kind: str, name: str, seed: int) -> dict:
    return {"edit": kind, "method": name, "clip": one.name, "seed": seed}


def rows_of(one: Case, by: Editor, values: argparse.Namespace) -> tuple[list[dict], str]:
    """(rows of a clip, what is to be said of it)."""
    share = flow_of(scenes.render(list(one.clip))[0].movedim(-1, 1)).share()
    found, said = [], f"{one.name}: flow agrees on {share:.0%}"
    try:
        atlas = LayeredEditor(by, *scenes.render(list(one.clip)), values.preset)
    except EI2Error as error:
        said += f"; the fit refuses it: {error}"
        found += [row(one, kind, name, None) | dict.fromkeys(COLUMNS) for kind in values.edits for name in LAYERED]
    else:
        said += (
            f"; the object slips {slip(atlas.atlas, one.clip):.1f} px; figures to look at: {atlas.report.count('LOOK')}"
        )
        found += layered(atlas, one, values)
    found += [row(one, kind, "truth", None) | of_truth(one, kind) for kind in values.edits]
    return [finite(r) for r in (*found, *video(by, one, values))], said


def of_truth(one: Case, kind: str) -> dict:
    """What no method can be better in: of stripes that move by parts of pixels some flicker stays."""
    return figures(_truth(one.clip, one.edits[kind]).images, one.clip, one.edits[kind], kind)


def means(rows: list[dict]) -> Iterator[dict]:
    """A row an edit and method, over clips that every method can edit; those that are refused by themselves."""
    refused = {r["clip"] for r in rows if r["mae"] is None}
    for clips_, without in (("all", refused), ("refused", {r["clip"] for r in rows} - refused)):
        own = [r for r in rows if r["clip"] not in without]
        for kind, name in dict.fromkeys((r["edit"], r["method"]) for r in own):
            of = [r for r in own if (r["edit"], r["method"]) == (kind, name)]
            known = {c: [r[c] for r in of if r[c] is not None] for c in COLUMNS}
            averages = {c: mean(values) if values else None for c, values in known.items()}
            yield {"edit": kind, "method": name, "clip": clips_, "seed": None} | averages


def worked(parts: tuple, values: argparse.Namespace) -> tuple[list[dict], str]:
    """`rows_of`, in a process of a pool."""
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        host("folder_paths").set_output_directory(folder)  # where fits are kept
        return rows_of(case(*parts), editor(), values)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--clips", type=int, default=len(CLIPS), help="the first of them")
    options.add_argument("--edits", nargs="+", choices=KINDS, default=list(KINDS))
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument("--steps", type=int, default=20, help="of a key frame")
    options.add_argument("--preset", choices=PRESETS, default="default", help="of the fit")
    options.add_argument("--tuning", type=int, default=Settings.steps, help="steps of tuning")
    options.add_argument("--ddim-steps", type=int, default=Settings.ddim_steps, help="of inversion and its edits")
    options.add_argument("--workers", type=int, default=1, help="processes; threads are those of one")
    values = report.parse(options)
    rows, notes = [], []
    with ProcessPoolExecutor(values.workers, get_context("spawn"), torch.set_num_threads, (values.threads,)) as pool:
        for found, said in pool.map(worked, CLIPS[: values.clips], repeat(values)):
            rows, notes = rows + found, [*notes, said]
            print(f"{said}\n{report.table(found)}", flush=True)
    report.publish([*means(rows), *rows], values, tuple(notes))


if __name__ == "__main__":
    main()
