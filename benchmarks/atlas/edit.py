"""How close an edit, aggregated from key frames in each way, comes to the truth on rendered clips.

    python dev.py bench edit [--motions slide perspective fast] [--seeds 0 1] [--frames 24] [--size 256 144]

The edit paints the object anew: the true edited clip is rendered, and its key frames are taken, as an editor would hand
them back, with a fault. noise: of 0.1, each colour and pixel; colours: those of each key frame are shifted, by 0.08 and
by nothing on average; views: only the left, the middle or the right part of each key frame was painted, and the atlas
knows it; both: noise and colours. dB, of the object's pixels in all frames, of the clip drawn from the aggregated
picture. direct: the atlas's own picture painted, no key frames. released: StableVideo's median, black what is not seen.
"""

import argparse
from dataclasses import replace

import torch
from torch import Tensor

from ei2_modules.atlas.aggregate import METHODS, aggregated
from ei2_modules.atlas.atlas import Atlas
from ei2_modules.atlas.key_frames import KeyFrames
from ei2_modules.atlas.options import PRESETS
from ei2_modules.atlas.propagate import splatted
from ei2_modules.atlas.texture import fill

from ..common import report
from .__main__ import fitted, options_for
from .scenes import MOTIONS, Scene, boxes, painting

NOISE, SHIFT = 0.1, 0.08
FAULTS = ("none", "noise", "colours", "views", "both")


def rows(name: str, seed: int, values: argparse.Namespace) -> list[dict]:
    """One clip, a row a fault."""
    scene = Scene(MOTIONS[name], values.frames, tuple(reversed(values.size)), seed)
    frames, alphas = scene.render()
    thing, background = scene.textures()
    truth, _ = scene.render((painting(1000 + seed, *thing.shape[1:]), background))
    atlas, _ = fitted(frames, boxes(alphas), options_for(name, values))
    keys = KeyFrames(0, (2, values.frames // 2, values.frames - 3))
    direct = painted(atlas, truth)
    found = []
    for fault in FAULTS:
        edited, partial = faulty(truth[list(keys.frames)], atlas, keys, fault, seed)
        figures = {"motion": name, "seed": seed, "fault": fault, "direct": quality(direct, frames, truth, alphas)}
        figures["released"] = quality(as_released(partial, keys, edited), frames, truth, alphas)
        for method in METHODS:
            layer, _ = aggregated(partial, keys, edited, frames[list(keys.frames)], method)
            figures[method] = quality(atlas.with_layer(0, layer), frames, truth, alphas)
        found.append(figures)
    return found


def faulty(truth: Tensor, atlas: Atlas, keys: KeyFrames, fault: str, seed: int) -> tuple[Tensor, Atlas]:
    """(the edited key frames, an atlas whose alpha says what of them was painted)."""
    generator = torch.Generator().manual_seed(seed)
    if fault in ("noise", "both"):
        truth = truth + NOISE * torch.randn(truth.shape, generator=generator)
    if fault in ("colours", "both"):
        shift = torch.randn(len(truth), 3, 1, 1, generator=generator)
        truth = truth + SHIFT * (shift - shift.mean(0))
    return truth.clamp(0, 1), thirds(atlas, keys) if fault == "views" else atlas


def thirds(atlas: Atlas, keys: KeyFrames) -> Atlas:
    """Each key frame shows a part of the object: by its place in the picture, so that parts overlap a little."""
    box, alpha = atlas.layers[0].box, atlas.alphas[0].clone()
    for k, t in enumerate(keys.frames):
        place = (atlas.maps([t], 0)[0, ..., 0] - box.left) / (box.right - box.left) * len(keys.frames)
        alpha[t, 0][(place < k - 0.2) | (place > k + 1.2)] = 0
    return replace(atlas, alphas=(alpha, *atlas.alphas[1:]))


def painted(atlas: Atlas, truth: Tensor) -> Atlas:
    """The atlas with the middle frame's truth painted into its picture, as an editor of the picture would."""
    middle = atlas.frames // 2
    picture = fill(*splatted(atlas, 0, middle, truth[middle]))
    return atlas.with_layer(0, atlas.layers[0].replaced(picture))


def as_released(atlas: Atlas, keys: KeyFrames, edited: Tensor) -> Atlas:
    """The lower median, with black for what a key frame does not show."""
    parts = [splatted(atlas, 0, t, frame)[0] for t, frame in zip(keys.frames, edited, strict=True)]
    return atlas.with_layer(0, atlas.layers[0].replaced(torch.stack(parts).median(0).values))


def quality(atlas: Atlas, frames: Tensor, truth: Tensor, alphas: Tensor) -> float:
    """dB of the object's pixels."""
    drawn = torch.cat([atlas.over(frames[some], some) for some in atlas.chunks()])
    own = (alphas > 0.95).expand_as(truth)
    return (-10 * (drawn - truth)[own].square().mean().log10()).item()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--motions", nargs="+", choices=MOTIONS, default=["slide", "perspective", "fast"])
    options.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options.add_argument("--frames", type=int, default=24)
    options.add_argument("--size", type=int, nargs=2, default=[256, 144], help="width and height")
    options.add_argument("--preset", choices=PRESETS, default="default")
    values = report.parse(options)
    found = []
    for seed in values.seeds:
        for name in values.motions:
            found += rows(name, seed, values)
            print(report.table(found[-len(FAULTS) :]), flush=True)
    width, height = values.size
    report.publish(found, values, (f"{values.frames} frames of {width}x{height}, three key frames",))


if __name__ == "__main__":
    main()
