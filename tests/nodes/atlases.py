"""A rendered clip of four small frames and an atlas of it, for the tests of atlas nodes."""

from dataclasses import replace
from types import SimpleNamespace

import comfy.utils
import pytest
import torch

from benchmarks.atlas.scenes import MOTIONS, Scene, boxes

from .mini import pack, run

SCENE = Scene(replace(MOTIONS["slide"], camera=(0.06, 0.02, 0.02, 2, 0), thing=(0.1, 0.03, 8, 0.05)), 4, (40, 64), 1)


def rendered():
    """images IMAGE, mask MASK of boxes, and alpha (n, h, w)."""
    with torch.inference_mode():
        frames, alpha = SCENE.render()
        return SimpleNamespace(images=frames.movedim(1, -1), mask=boxes(alpha, 3)[:, 0], alpha=alpha[:, 0])


def fitted():
    """The same with what Fit Video Atlas gives in a few steps: atlas, foreground, seen (its alpha)."""
    clip, given = rendered(), {"motion": "rigid", "preset": "preview", "seed": 0, "max_frames": 9, "resume": "new run"}
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(pack("ei2_modules.atlas.options").PRESETS, "preview", 6)
        clip.atlas, _, clip.foreground, _, clip.seen, _ = run(
            "fit_atlas.FitAtlas", images=clip.images, mask=clip.mask, **given
        )
        return clip


def watched_bar(monkeypatch):
    """A list of (value, total, size of the picture or None) that fills as ComfyUI's progress bar is moved."""
    moves = []

    class Bar:
        def __init__(self, total):
            self.total = total

        def update_absolute(self, value, total, preview=None):
            moves.append((value, total, preview and preview[1].size))

    monkeypatch.setattr(comfy.utils, "ProgressBar", Bar)
    return moves
