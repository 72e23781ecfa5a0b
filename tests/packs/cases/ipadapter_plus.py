"""ComfyUI_IPAdapter_plus: pictures, of the whole clip or one a frame, that every frame attends to beside the text."""

import pytest
import torch

from ...nodes.mini import clip, inflate, invert, model, sample, tune
from ..edit import LONG, PER_FRAME, ROUNDING, apart, near, one_frame, refused, smooth
from ..loading import node

SEEN, TEXT, TOKENS = 16, 768, 4  # widths of a picture's embedding and of a token, and tokens a picture


def adapter() -> dict:
    """A file of IPAdapter for SD1.x with random weights."""
    generator = torch.Generator().manual_seed(0)

    def weight(*shape):
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    layers = {
        f"{number}.to_{name}_ip.weight": weight(width_of(number), TEXT) for number in range(1, 32, 2) for name in "kv"
    }
    projection = {"proj.weight": weight(TOKENS * TEXT, SEEN), "proj.bias": torch.zeros(TOKENS * TEXT)}
    norm = {"norm.weight": torch.ones(TEXT), "norm.bias": torch.zeros(TEXT)}
    return {"image_proj": projection | norm, "ip_adapter": layers}


def width_of(number: int) -> int:
    """Of the block that the pack gives this layer to: the middle one has the miniature's larger width."""
    return 64 if number == 31 else 32


def pictures(frames):
    """An embedding of each."""
    return torch.cat([torch.randn(1, SEEN, generator=torch.Generator().manual_seed(i)) for i in frames])


def looking_at(m, embeds, batch=False):
    """batch: one picture a frame."""
    return node(
        f"IPAdapterEmbeds{'Batch' if batch else ''}",
        model=m,
        ipadapter=adapter(),
        pos_embed=embeds,
        neg_embed=torch.zeros_like(embeds),
        weight=1.0,
        weight_type="linear",
        start_at=0.0,
        end_at=1.0,
        embeds_scaling="V only",
    )[0]


def test_batch(record_property):
    """Edit of 20 frames with a picture each: every frame as it is alone with its own"""
    m, frames = smooth(**PER_FRAME), [0, 5, 11, 19]
    noise = invert(m, clip(LONG), steps=2)[0]
    single = {i: invert(m, one_frame(clip(LONG), i), steps=2)[0] for i in frames}

    def alone(i, of):
        return sample(looking_at(m, pictures([of]), batch=True), single[i], cfg=2.0)

    together = sample(looking_at(m, pictures(range(LONG)), batch=True), noise, cfg=2.0)[frames]
    right, wrong = (torch.cat([alone(i, of(i)) for i in frames]) for of in (int, lambda i: (i + 10) % LONG))
    assert near(apart(together, right), apart(wrong, right), record_property)


@pytest.mark.parametrize("frames", [3, LONG])
def test_one_picture(frames, record_property):
    """One picture for {frames} frames: the edit is finite, and another than without"""
    m = smooth()
    noise = invert(m, clip(frames), steps=2)[0]
    plain, seen = sample(m, noise, cfg=2.0), sample(looking_at(m, pictures([0])), noise, cfg=2.0)
    record_property("apart by", f"{apart(seen, plain):.1e}")
    assert seen.isfinite().all() and apart(seen, plain) > ROUNDING


@pytest.mark.parametrize("pictured", ["one picture", "a picture each"])
def test_tuning(pictured, record_property):
    """Tuning of 20 frames upon it, {pictured}: done, or refused in words"""
    batch = pictured == "a picture each"
    m = looking_at(inflate(model()), pictures(range(LONG) if batch else [0]), batch)
    said = refused(lambda: tune(m, clip(LONG), steps=2, window=6))
    record_property("refused:" if said else "done", said or "")
