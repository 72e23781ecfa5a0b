"""Edited attention maps against the formulas written out for one frame, head and place at a time."""

import math

import pytest
import torch

from ei2_modules.attention.control import maps as maps_file
from ei2_modules.attention.control.alignment import align
from ei2_modules.attention.control.maps import (
    controlled_attention,
    edited_word_maps,
    softmax_maps,
    word_maps,
)
from ei2_modules.attention.control.words import word_weights
from ei2_modules.attention.core import scaled_dot_product

from .toy_text import text

PROMPTS = {
    "nothing": ("a red star", "a red star"),
    "swap": ("a red star", "a blue star"),
    "pieces spread": ("a red star", "a red square"),
    "pieces gathered": ("a red square", "a red star"),
    "insertion": ("a red star", "a red star at night"),
    "deletion": ("a big red star", "a star"),
    "more chunks": ("a red star", "a red star and a blue cube on a green field at night"),
}
FRAMES, PLACES, DIM = 3, 5, 8


def clip(source, target, heads=2, scale=1.0, seed=0):
    """q, k, v of the target and q, k of the source, (frames, places or tokens, heads·DIM), double."""
    generator = torch.Generator().manual_seed(seed)
    tokens = len(target.tokens)
    lengths = (PLACES, tokens, tokens, PLACES, len(source.tokens))
    return [scale * torch.randn(FRAMES, n, heads * DIM, generator=generator, dtype=torch.float64) for n in lengths]


def slow_map(q, k):
    """One frame, head and place: q (d,), k (s, d) -> s shares."""
    scores = [math.exp(float(q @ row) / math.sqrt(len(q))) for row in k]
    return [score / sum(scores) for score in scores]


def slow_edit(source, target, alignment, weights):
    """Token by token: from where its share comes."""
    row = []
    for j, own in enumerate(target):
        taken = sum(float(alignment.mapper[i, j]) * source[i] for i in range(len(source)))
        row.append(float(weights[j]) * (taken if alignment.shared[j] else own))
    return row


def slow_attention(q, k, v, q_src, k_src, heads, alignment, weights):
    out = torch.zeros_like(q)
    for b in range(FRAMES):
        for h in range(heads):
            at = slice(h * DIM, (h + 1) * DIM)
            for place in range(PLACES):
                source, target = slow_map(q_src[b, place, at], k_src[b, :, at]), slow_map(q[b, place, at], k[b, :, at])
                row = slow_edit(source, target, alignment, weights)
                out[b, place, at] = sum(w * value for w, value in zip(row, v[b, :, at], strict=True))
    return out


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 3])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_attention_is_the_formula(prompts, heads, weighted):
    source, target = (text(prompt, 12) for prompt in prompts)
    alignment = align(source, target)
    weights = word_weights(target, {"star" if "star" in target.words else "square": 2.5, "a": 0.0} if weighted else {})
    q, k, v, q_src, k_src = clip(source, target, heads)
    expected = slow_attention(q, k, v, q_src, k_src, heads, alignment, weights)
    found = controlled_attention(q, k, v, q_src, k_src, heads, alignment, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_same_text_and_queries_change_nothing():
    same = text("a red star")
    q, k, v, _, _ = clip(same, same)
    found = controlled_attention(q, k, v, q, k, 2, align(same, same))
    assert torch.equal(found, scaled_dot_product(q, k, v, 2))


@pytest.mark.parametrize(
    ("prompts", "calls"),
    [
        ("swap", [16]),  # every token takes the source's map: the target's own is not asked for
        ("insertion", [16, 16]),
        ("more chunks", [16, 32]),
    ],
)
def test_two_plain_attentions_at_most(prompts, calls):
    source, target = (text(prompt) for prompt in PROMPTS[prompts])
    q, k, v, q_src, k_src = clip(source, target)
    seen = []

    def attend(q, k, v, heads):
        seen.append(k.shape[1])
        return scaled_dot_product(q, k, v, heads)

    controlled_attention(q, k, v, q_src, k_src, 2, align(source, target), attend=attend)
    assert seen == calls


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 4e-3), (torch.bfloat16, 3e-2)])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_half_precision(dtype, tolerance, scale):
    """Against double on the same rounded numbers; at scale 30 scores reach thousands, where exp overflows."""
    source, target = (text(prompt) for prompt in PROMPTS["insertion"])
    tensors = [x.to(dtype) for x in clip(source, target, scale=scale)]
    tensors[2] = (tensors[2] / scale).to(dtype)
    found = controlled_attention(*tensors, 2, align(source, target))
    expected = controlled_attention(*(x.double() for x in tensors), 2, align(source, target))
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=tolerance)
    maps = softmax_maps(tensors[0], tensors[1], 2)
    assert maps.dtype == torch.float32
    torch.testing.assert_close(maps.sum(-1), torch.ones(FRAMES, 2, PLACES), rtol=0, atol=1e-5)
    torch.testing.assert_close(maps, softmax_maps(tensors[0].double(), tensors[1].double(), 2), rtol=0, atol=1e-4)


@pytest.mark.parametrize("at_once", [1, 5 * 16, 200, 2**24])
@pytest.mark.parametrize("tokens", [[2], [2, 3, 7]])
def test_word_maps(tokens, at_once, monkeypatch):
    """The same however few are computed at a time."""
    monkeypatch.setattr(maps_file, "AT_ONCE", at_once)
    source = text("a red star")
    q, k, *_ = clip(source, source, heads=3)
    found = word_maps(q, k, 3, tokens)
    for b in range(FRAMES):
        for place in range(PLACES):
            rows = [slow_map(q[b, place, h : h + DIM], k[b, :, h : h + DIM]) for h in range(0, 3 * DIM, DIM)]
            expected = sum(row[i] for row in rows for i in tokens) / (3 * len(tokens))
            assert float(found[b, place]) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("tokens", [[2], [1, 2, 3]])
@pytest.mark.parametrize("prompts", PROMPTS.values(), ids=PROMPTS)
def test_word_maps_of_an_edit(prompts, tokens, weighted):
    """Of the very maps that it attends by, place by place."""
    source, target = (text(prompt, 12) for prompt in prompts)
    alignment, heads = align(source, target), 2
    weights = word_weights(target, {"star" if "star" in target.words else "square": 2.5, "a": 0.0} if weighted else {})
    q, k, _, q_src, k_src = clip(source, target, heads)
    found = edited_word_maps(q, k, q_src, k_src, heads, tokens, alignment, weights if weighted else None)
    for b in range(FRAMES):
        for place in range(PLACES):
            seen = 0.0
            for at in (slice(0, DIM), slice(DIM, 2 * DIM)):
                own, taken = slow_map(q[b, place, at], k[b, :, at]), slow_map(q_src[b, place, at], k_src[b, :, at])
                row = slow_edit(taken, own, alignment, weights)
                seen += sum(row[j] for j in tokens) / len(tokens) / heads
            assert float(found[b, place]) == pytest.approx(seen, abs=1e-6)


def test_word_maps_hold_few_at_a_time(monkeypatch):
    sizes = []
    monkeypatch.setattr(maps_file, "AT_ONCE", 2 * PLACES * 16)
    monkeypatch.setattr(maps_file, "softmax_maps", lambda *args: sizes.append(found := softmax_maps(*args)) or found)
    source = text("a red star")
    q, k, *_ = clip(source, source, heads=3)
    word_maps(q, k, 3, [2])
    assert [maps.numel() for maps in sizes] == [2 * PLACES * 16] * 4 + [PLACES * 16]  # nine heads of frames
