"""ComfyUI-TiledDiffusion: it stacks tiles of all frames into one batch."""

import pytest
import torch

from ...nodes.mini import clip, invert, sample, tune
from ..edit import ROUNDING, apart, refused, smooth
from ..loading import node

METHODS = ["MultiDiffusion", "Mixture of Diffusers", "SpotDiffusion"]


def tiled(model, method, at_once):
    """Tiles of 16x16 latents, four of which cover 24x24."""
    sizes = {"tile_width": 128, "tile_height": 128, "tile_overlap": 32}
    return node("TiledDiffusion", model=model, method=method, **sizes, tile_batch_size=at_once)[0]


def seeded(work):
    torch.manual_seed(0)  # SpotDiffusion shifts its tiles at random
    return work()


@pytest.mark.parametrize("frames", [3, 20])
@pytest.mark.parametrize("method", METHODS)
def test_edit(method, frames, record_property):
    """Edit of {frames} frames under {method}: tile_batch_size 4 gives what 1 gives"""
    model = smooth()
    noise = invert(model, clip(frames, 24, 24), steps=2)[0]
    one, four = (seeded(lambda n=n: sample(tiled(model, method, n), noise, cfg=2.0)) for n in (1, 4))
    record_property("apart by", f"{apart(four, one):.1e}")
    assert apart(four, one) < ROUNDING


def test_inversion(record_property):
    """Inversion under MultiDiffusion: tile_batch_size 4 gives what 1 gives"""
    one, four = (invert(tiled(smooth(), METHODS[0], n), clip(3, 24, 24), steps=2)[0]["samples"] for n in (1, 4))
    record_property("apart by", f"{apart(four, one):.1e}")
    assert apart(four, one) < ROUNDING


def test_tuning(record_property):
    """Tuning under MultiDiffusion, tile_batch_size 4: done, or refused in words"""
    said = refused(lambda: tune(tiled(smooth(), METHODS[0], 4), clip(3, 24, 24), steps=2))
    record_property("refused:" if said else "done", said or "")
