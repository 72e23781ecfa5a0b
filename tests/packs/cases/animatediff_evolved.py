"""ComfyUI-AnimateDiff-Evolved: its context options lay windows of their own over a clip."""

import pytest
import torch

from ...nodes.mini import clip, inflate, invert, model, sample, tune
from ..edit import LONG, PER_FRAME, ROUNDING, apart, smooth
from ..loading import node


def evolved(m, length=None, overlap=0):
    """Under Use Evolved Sampling; length: of its windows, none without."""
    more = {}
    if length:
        options = {"context_length": length, "context_overlap": overlap}
        more["context_options"] = node("ADE_StandardStaticContextOptions", **options)[0]
    return node("ADE_UseEvolvedSampling", model=m, beta_schedule="use existing", **more)[0]


@pytest.mark.parametrize("length, overlap", [(10, 0), (16, 4)])
@pytest.mark.parametrize("order", ["behind", "before"])
def test_windows(order, length, overlap, record_property):
    """Windows of {length} frames over 20, its node {order} Inflate UNet: inverted and edited, no call sees more"""
    m = (
        evolved(smooth(), length, overlap)
        if order == "behind"
        else inflate(evolved(model(scale=0.05), length, overlap))
    )
    seen, apply_model = set(), m.model.apply_model

    def watched(x, t, **inputs):
        seen.add(len(x) // len(inputs["transformer_options"]["cond_or_uncond"]))
        return apply_model(x, t, **inputs)

    m.model.apply_model = watched
    noise = invert(m, clip(LONG), steps=2)[0]
    edit = sample(m, noise, cfg=2.0)
    record_property("frames a call", ", ".join(map(str, sorted(seen))))
    assert edit.isfinite().all() and max(seen) <= length


def test_halves(record_property):
    """Two windows of 10 frames without overlap: each as that half alone"""
    m, latents = smooth(**PER_FRAME), clip(LONG)["samples"]
    together = invert(evolved(m, 10), {"samples": latents}, steps=2)[0]["samples"]
    halves = [invert(m, {"samples": half}, steps=2)[0]["samples"] for half in latents.split(10)]
    off = apart(together, torch.cat(halves))
    record_property("apart by", f"{off:.1e}")
    assert off < ROUNDING


def test_without_windows():
    """Its sampling without context options: the same bits as without it"""
    m = inflate(model())
    with_it, without = (sample(n, invert(n, clip(), steps=2)[0], cfg=2.0) for n in (evolved(m), m))
    assert torch.equal(with_it, without)


@pytest.mark.parametrize("length", [10, None])
def test_tuning(length):
    """Tuning of 20 frames, 6 a step, context length {length}: the losses are those without it"""
    losses = [
        tune(n, clip(LONG), steps=3, window=6)[2]["loss"] for n in (evolved(inflate(model()), length), inflate(model()))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
