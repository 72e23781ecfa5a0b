"""ComfyUI-Advanced-ControlNet: its hints, latent keyframes and masks belong to frames of the whole clip."""

import pytest
import torch

from ...nodes.mini import caption, clip, controlled, controlnet, hints, inflate, invert, model, sample, tune
from ..edit import LONG, PER_FRAME, ROUNDING, apart, one_frame, smooth
from ..loading import node

KINDS = ["hints", "latent keyframes", "masks"]


def strengths(frames) -> list[float]:
    return [0.2 + 0.04 * i for i in frames]


def masks(frames):
    return torch.rand(LONG, 64, 64, generator=torch.Generator().manual_seed(1))[list(frames)]


def advanced(kind, frames):
    """(positive, negative) under its node, for these frames of the clip."""
    more = {}
    if kind == "latent keyframes":
        more["latent_kf_override"] = node("LatentKeyframeBatchedGroup", float_strengths=strengths(frames))[0]
    if kind == "masks":
        more["mask_optional"] = masks(frames)
    return node(
        "ACN_AdvancedControlNetApply_v2",
        positive=caption(),
        negative=caption(3),
        control_net=controlnet(),
        image=hints(frames),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        **more,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_inversion(kind, record_property):
    """Inversion of 20 frames with {kind}: every frame as it is alone with its own"""
    m, latents = smooth(**PER_FRAME), clip(LONG)
    together = invert(m, latents, advanced(kind, range(LONG))[0], steps=2)[0]["samples"]
    alone = [invert(m, one_frame(latents, i), advanced(kind, [i])[0], steps=2)[0]["samples"] for i in (0, 5, 11, 19)]
    off = apart(together[[0, 5, 11, 19]], torch.cat(alone))
    record_property("apart by", f"{off:.1e}")
    assert off < ROUNDING


@pytest.mark.parametrize("kind", KINDS)
def test_edit(kind, record_property):
    """Edit of 20 frames with {kind}: every frame as it is alone with its own"""
    m = smooth(**PER_FRAME)
    noise = invert(m, clip(LONG), steps=2)[0]
    together = sample(m, noise, *advanced(kind, range(LONG)), cfg=2.0)
    alone = [sample(m, invert(m, one_frame(clip(LONG), i), steps=2)[0], *advanced(kind, [i]), cfg=2.0) for i in (5, 19)]
    off = apart(together[[5, 19]], torch.cat(alone))
    record_property("apart by", f"{off:.1e}")
    assert off < ROUNDING


def test_tuning(record_property):
    """Tuning of 20 frames, 6 a step: losses of its ControlNet are those of the stock one"""
    ours = tune(inflate(model()), clip(LONG), advanced("hints", range(LONG))[0], steps=3, window=6)[2]["loss"]
    stock = controlled((controlnet(), hints(range(LONG))))[0]
    theirs = tune(inflate(model()), clip(LONG), stock, steps=3, window=6)[2]["loss"]
    record_property("losses", f"{ours[-1]:.6f} and {theirs[-1]:.6f}")
    assert ours == pytest.approx(theirs, rel=1e-4)
