"""How close an atlas comes to rendered clips whose maps are known: maps, alpha, PSNR, seconds, growth and memory.

    python dev.py bench atlas [--motions slide bend ...] [--seeds 0 1] [--frames 24] [--size 256 144] [--growth 16 64]

Map errors are pixels along the true correspondence, between neighbours and from the middle frame to all others. The
masks are boxes, the flow is Lucas and Kanade's. Seconds, of flow, start and fit together, are CPU time over threads.
drift: of marks painted on the object, from the middle frame to all others. growth: seconds of a longer clip over
those of a shorter one; peak: memory held at once beyond clip, flow and mask, counted at a few steps.
"""

import argparse
from collections.abc import Iterator

import torch

from ei2_modules.atlas.fit import Fit
from ei2_modules.atlas.options import PRESETS, FitOptions
from ei2_modules.atlas.start import start
from ei2_modules.motion.flow import flow_of

from ..common import report
from ..common.alive import Alive
from . import nla_reference
from .measures import alpha_iou, map_errors, mark_drift, psnr
from .scenes import MOTIONS, Scene, boxes

KINDS = {"bend": "non-rigid"}  # of motion, where the default is not meant for it


def row(name: str, seed: int, values: argparse.Namespace) -> dict:
    """One clip."""
    scene = Scene(MOTIONS[name], values.frames, tuple(reversed(values.size)), seed)
    frames, alphas = scene.render()
    options = options_for(name, values)
    began = report.now()
    atlas, begun = fitted(frames, boxes(alphas), options)
    seconds = report.now() - began
    rendered = torch.cat([atlas.render(c) for c in atlas.chunks()])
    alpha = torch.cat([atlas.alpha(c, 0) for c in atlas.chunks()])
    figures = {"motion": name, "seed": seed, "s": seconds, "dB": psnr(rendered, frames)}
    figures |= of_maps(scene, alphas, [layer.maps for layer in atlas.layers])
    figures |= {"IoU box": alpha_iou(boxes(alphas), alphas), "IoU start": alpha_iou(begun.alphas[0], alphas)}
    return figures | {"IoU": alpha_iou(alpha, alphas), "drift": mark_drift(scene, alphas, atlas)}


def of_maps(scene: Scene, alphas: torch.Tensor, maps: list) -> dict:
    """Errors of the foreground's and of the background's."""
    figures = {}
    for k, layer in enumerate(("fg", "bg")):
        near, far = map_errors(scene, alphas, maps[k], k)
        figures |= {f"{layer} near": near.mean().item(), f"{layer} far": far.mean().item(),
                    f"{layer} far p95": far.quantile(0.95).item()}  # fmt: skip
    return figures


def beside(ours: dict, values: argparse.Namespace) -> Iterator[dict]:
    """Our row of a clip, and those of the reference."""
    yield {"by": "ours"} | ours | {"steps": None, "ours above": None}
    for text in values.seconds:
        found = reference(ours["motion"], ours["seed"], span(text, ours["s"]), values)
        yield {"by": "NLA"} | dict.fromkeys(ours) | found | {"ours above": ours["dB"] - found["dB"]}


def reference(name: str, seed: int, seconds: float, values: argparse.Namespace) -> dict:
    """One clip by Layered Neural Atlases."""
    scene = Scene(MOTIONS[name], values.frames, tuple(reversed(values.size)), seed)
    frames, alphas = scene.render()
    options = nla_reference.Options(batch=values.batch, rate=values.rate, seed=seed)
    training, took = nla_reference.trained(frames, boxes(alphas), seconds, options, bool(MOTIONS[name].light))
    rendered, alpha = nla_reference.rendered(training)
    networks = training.networks.foreground, training.networks.background
    maps = [nla_reference.NeuralMaps(network, values.frames) for network in networks]
    figures = {"motion": name, "seed": seed, "s": took, "dB": psnr(rendered, frames)} | of_maps(scene, alphas, maps)
    steps = f"{training.pretrained} + {training.iteration}"
    return figures | {"IoU box": alpha_iou(boxes(alphas), alphas), "IoU": alpha_iou(alpha, alphas), "steps": steps}


def span(text: str, ours: float = 1.0) -> float:
    """Seconds; "5x": five times ours."""
    return float(text[:-1]) * ours if text.endswith("x") else float(text)


def options_for(name: str, values: argparse.Namespace) -> FitOptions:
    kind = KINDS.get(name, "rigid")
    return FitOptions(steps=PRESETS[values.preset], motion=kind, lighting=bool(MOTIONS[name].light))


def fitted(frames, mask, options: FitOptions):
    """(atlas, start), the flow computed too."""
    with torch.no_grad():
        flow = flow_of(frames, even_light=options.lighting)
        begun = start(frames, (mask,), flow, options)
    return Fit(frames, (mask,), flow, begun, options).run(), begun


def growth(values: argparse.Namespace) -> list[dict]:
    """Seconds and memory of clips of several lengths."""
    rows = []
    for count in values.growth:
        scene = Scene(MOTIONS["slide"], count, tuple(reversed(values.size)))
        frames, alphas = scene.render()
        mask, options = boxes(alphas), options_for("slide", values)
        began = report.now()
        fitted(frames, mask, options)
        seconds = report.now() - began
        with torch.no_grad():
            flow = flow_of(frames)
        rows.append({"frames": count, "s": seconds, "peak MiB": peak(frames, mask, flow, options)})
    return [row | {"growth": row["s"] / rows[0]["s"]} for row in rows]


def peak(frames, mask, flow, options: FitOptions) -> int:
    """MiB beyond what comes in: of the start, and of a few steps."""
    with Alive() as alive:
        with torch.no_grad():
            begun = start(frames, (mask,), flow, options)
        fit = Fit(frames, (mask,), flow, begun, options)
        for _ in range(3):
            fit.step()
        fit.atlas()
    return round(alive.peak / 2**20)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--motions", nargs="+", choices=MOTIONS, default=list(MOTIONS))
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument("--frames", type=int, default=24)
    options.add_argument("--size", type=int, nargs=2, default=[256, 144], help="width and height")
    options.add_argument("--preset", choices=PRESETS, default="default")
    options.add_argument("--growth", type=int, nargs="*", default=[], help="frames of clips to compare, such as 16 64")
    options.add_argument("--reference", action="store_true", help="Layered Neural Atlases as published beside ours")
    options.add_argument("--seconds", nargs="+", default=["1x"], metavar="S", help="of the reference: 5x or 600")
    options.add_argument("--batch", type=int, default=nla_reference.Options.batch, help="of the reference")
    options.add_argument("--rate", type=float, default=nla_reference.Options.rate, help="of the reference")
    values = report.parse(options)
    rows = []
    for seed in values.seeds:
        for name in values.motions:
            ours = row(name, seed, values)
            for found in beside(ours, values) if values.reference else [ours]:
                rows.append(found)
                print(report.table(rows[-1:]), flush=True)
    width, height = values.size
    notes = [f"{values.frames} frames of {width}x{height}; bend is fitted non-rigid, the rest rigid"]
    for found in growth(values):
        took = f"{found['s']:.3g} s, {found['growth']:.3g} times"
        notes.append(f"slide, {found['frames']} frames: {took}; peak {found['peak MiB']} MiB")
    report.publish(rows, values, tuple(notes))


if __name__ == "__main__":
    main()
