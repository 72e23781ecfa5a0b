"""ComfyUI-Advanced-ControlNet: its hints, latent keyframes and masks belong to frames of the whole clip."""

import pytest
import torch

from ...nodes.mini import caption, clip, controlled, controlnet, hints, inflate, invert, model, sample, tune
from ..edit import LONG, PER_FRAME, apart, near, one_frame, smooth
from ..loading import node

KINDS = ["hints", "latent keyframes", "masks"]
LOOKED_AT = [0, 5, 11, 19]


def strengths(frames) -> list[float]:
    return [0.2 + 0.04 * i for i in frames]


def masks(frames):
    return torch.rand(LONG, 64, 64, generator=torch.Generator().manual_seed(1))[list(frames)]


def pictures(frames):
    """Darker to brighter: noise would average out."""
    return hints(frames) * torch.tensor([i / LONG for i in frames])[:, None, None, None]


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
        image=pictures(frames),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
        **more,
    )[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_inversion(kind, record_property):
    """Inversion of 20 frames with {kind}: every frame as it is alone with its own"""
    m, latents = smooth(**PER_FRAME), clip(LONG)

    def alone(i, of):
        return invert(m, one_frame(latents, i), advanced(kind, [of])[0], steps=2)[0]["samples"]

    together = invert(m, latents, advanced(kind, range(LONG))[0], steps=2)[0]["samples"][LOOKED_AT]
    right, wrong = (torch.cat([alone(i, of(i)) for i in LOOKED_AT]) for of in (int, lambda i: (i + 10) % LONG))
    assert near(apart(together, right), apart(wrong, right), record_property)


@pytest.mark.parametrize("kind", KINDS)
def test_edit(kind, record_property):
    """Edit of 20 frames with {kind}: every frame as it is alone with its own"""
    m = smooth(**PER_FRAME)
    noise = invert(m, clip(LONG), steps=2)[0]
    single = {i: invert(m, one_frame(clip(LONG), i), steps=2)[0] for i in LOOKED_AT}

    def alone(i, of):
        return sample(m, single[i], *advanced(kind, [of]), cfg=2.0)

    together = sample(m, noise, *advanced(kind, range(LONG)), cfg=2.0)[LOOKED_AT]
    right, wrong = (torch.cat([alone(i, of(i)) for i in LOOKED_AT]) for of in (int, lambda i: (i + 10) % LONG))
    assert near(apart(together, right), apart(wrong, right), record_property)


def test_tuning(record_property):
    """Tuning of 20 frames, 6 a step: losses of its ControlNet are those of the stock one"""

    def losses(positive):
        return torch.tensor(tune(inflate(model()), clip(LONG), positive, steps=3, window=6)[2]["loss"])

    def stock(frames):
        return losses(controlled((controlnet(), pictures(frames)))[0])

    right, wrong = stock(range(LONG)), stock(range(LONG)[::-1])
    off = float((losses(advanced("hints", range(LONG))[0]) - right).abs().max())
    assert near(off, float((wrong - right).abs().max()), record_property)
