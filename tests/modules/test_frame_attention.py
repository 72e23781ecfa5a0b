"""FFAM and its siblings against one loop over query frames that spells out eq. 10."""

import pytest
import torch
from einops import rearrange

from ei2_modules.attention.frame import ATTENTIONS, average_pool, frame_attention, groups, scaled_dot_product
from ei2_modules.errors import EI2Error

HEADS, DIM = 2, 8


def tensors(clips, frames, size, dtype=torch.float64):
    torch.manual_seed(0)
    return torch.randn(3, clips * frames, size[0] * size[1], DIM, dtype=dtype)


def slow_pool(tokens, size, r):
    """Average over r x r windows, token by token; r is cut to the side it does not fit."""
    h, w = size
    grid = tokens.reshape(h, w, -1)
    ry, rx = min(r, h), min(r, w)
    return torch.stack([grid[y : y + ry, x : x + rx].mean((0, 1)) for y in range(0, h, ry) for x in range(0, w, rx)])


def slow_visible(kind, clip, i, size, r):
    """The tokens frame i may look at, from clip (n, l, d)."""
    n = len(clip)
    parts = {
        "FFAM": lambda: [clip[i]] + [slow_pool(clip[j], size, r) for j in range(n) if j != i],
        "SCA": lambda: [clip[0], clip[max(i - 1, 0)]],
        "first-frame": lambda: [clip[0]],
        "dense": lambda: list(clip),
        "per-frame": lambda: [clip[i]],
        "middle-frame": lambda: [clip[(n - 1) // 2]],
    }
    return torch.cat(parts[kind]())


def slow_attention(q, k, v, frames, size, kind, r):
    rows = []
    for row in range(len(q)):
        clip, i = divmod(row, frames)
        inside = slice(clip * frames, (clip + 1) * frames)
        keys, values = (slow_visible(kind, x[inside], i, size, r) for x in (k, v))
        heads = [
            torch.softmax(qh @ kh.T / (DIM // HEADS) ** 0.5, -1) @ vh
            for qh, kh, vh in zip(*(x.chunk(HEADS, -1) for x in (q[row], keys, values)), strict=True)
        ]
        rows.append(torch.cat(heads, -1))
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["FFAM", "SCA", "first-frame", "dense", "per-frame", "middle-frame"])
@pytest.mark.parametrize("r", [1, 2, 4, 8])
@pytest.mark.parametrize(
    ("clips", "frames", "size"),
    [(1, 3, (4, 4)), (2, 3, (4, 6)), (2, 4, (5, 7)), (1, 2, (3, 9)), (1, 1, (4, 4)), (2, 2, (1, 3))],
)
def test_equals_the_slow_reference(kind, r, clips, frames, size):
    q, k, v = tensors(clips, frames, size)
    fast = frame_attention(q, k, v, kind=kind, heads=HEADS, frames=frames, size=size, ratio=r)
    torch.testing.assert_close(fast, slow_attention(q, k, v, frames, size, kind, r), rtol=0, atol=1e-12)


def options(kind, frames, size, r=2):
    return {"kind": kind, "heads": HEADS, "frames": frames, "size": size, "ratio": r}


EQUIVALENT = {
    "FFAM r=1 is dense": (options("FFAM", 4, (4, 4), 1), options("dense", 4, (4, 4))),
    "one frame: FFAM is self-attention": (options("FFAM", 1, (4, 4)), options("per-frame", 1, (4, 4))),
    "one frame: SCA is self-attention": (options("SCA", 1, (4, 4)), options("per-frame", 1, (4, 4))),
    "one frame: dense is self-attention": (options("dense", 1, (4, 4)), options("per-frame", 1, (4, 4))),
    "r beyond the map is the whole map": (options("FFAM", 4, (4, 4), 4), options("FFAM", 4, (4, 4), 8)),
}
DIFFERENT = {
    "FFAM r=2 is not dense": (options("FFAM", 4, (4, 4)), options("dense", 4, (4, 4))),
    "r matters": (options("FFAM", 4, (4, 4), 2), options("FFAM", 4, (4, 4), 4)),
    "height and width are not exchanged": (options("FFAM", 4, (2, 8)), options("FFAM", 4, (8, 2))),
    "two clips of 2 are not one of 4": (options("FFAM", 2, (4, 4)), options("FFAM", 4, (4, 4))),
    "SCA never sees its own frame": (options("SCA", 4, (4, 4)), options("per-frame", 4, (4, 4))),
}


@pytest.mark.parametrize("pair", EQUIVALENT.values(), ids=EQUIVALENT)
def test_equivalent(pair):
    q, k, v = tensors(1, 4, (4, 4))
    torch.testing.assert_close(*(frame_attention(q, k, v, **o) for o in pair), rtol=0, atol=1e-12)


@pytest.mark.parametrize("pair", DIFFERENT.values(), ids=DIFFERENT)
def test_different(pair):
    q, k, v = tensors(1, 4, (4, 4))
    a, b = (frame_attention(q, k, v, **o) for o in pair)
    assert (a - b).abs().max() > 0.01


def test_own_coarse_tokens_are_left_out():
    """Including them would be another function: only the key count and a probe can tell."""
    seen = []

    def attend(q, k, v, heads):
        seen.append(k)
        return scaled_dot_product(q, k, v, heads)

    q, k, v = tensors(1, 3, (4, 4))
    k = torch.arange(3.0).view(3, 1, 1).expand(3, 16, DIM)  # a key says which frame it comes from
    frame_attention(q.float(), k, v.float(), attend=attend, **options("FFAM", 3, (4, 4)))
    assert seen[0].shape == (3, 16 + 2 * 4, DIM)
    for i in range(3):
        assert set(seen[0][i, 16:, 0].tolist()) == {0.0, 1.0, 2.0} - {float(i)}


@pytest.mark.parametrize("kind", ["FFAM", "SCA", "first-frame", "dense", "per-frame", "middle-frame"])
def test_clips_never_mix(kind):
    """Changing the second clip (uncond) leaves the first (cond) bit-identical."""
    q, k, v = tensors(2, 3, (4, 4))
    before = frame_attention(q, k, v, **options(kind, 3, (4, 4)))
    k[3:], v[3:] = k[3:] + 1, v[3:] - 1
    after = frame_attention(q, k, v, **options(kind, 3, (4, 4)))
    assert torch.equal(before[:3], after[:3])
    assert not torch.equal(before[3:], after[3:])


def test_frames_are_interchangeable():
    q, k, v = tensors(1, 4, (4, 4))
    order = [2, 0, 3, 1]
    out = frame_attention(q, k, v, **options("FFAM", 4, (4, 4)))
    moved = frame_attention(q[order], k[order], v[order], **options("FFAM", 4, (4, 4)))
    torch.testing.assert_close(out[order], moved, rtol=0, atol=1e-12)


def test_pooling_commutes_with_projection():
    x = torch.randn(2, 35, DIM)
    w = torch.randn(DIM, DIM)
    torch.testing.assert_close(average_pool(x, (5, 7), 2) @ w, average_pool(x @ w, (5, 7), 2), rtol=0, atol=1e-5)


def test_partial_windows_average_only_real_tokens():
    ones = average_pool(torch.ones(1, 15, 1), (3, 5), 2)
    assert ones.shape == (1, 2 * 3, 1)
    assert torch.equal(ones, torch.ones_like(ones))


@pytest.mark.parametrize("kind", ["FFAM", "SCA", "first-frame", "dense", "per-frame", "middle-frame"])
@pytest.mark.parametrize("ratio", [1, 2, 4])
def test_few_frames_at_a_time_are_the_same(kind, ratio, monkeypatch):
    """The way of large maps, which copies less than one k at a time."""
    q, k, v = tensors(2, 5, (4, 6))
    expected = frame_attention(q, k, v, **options(kind, 5, (4, 6), ratio))
    monkeypatch.setattr("ei2_modules.attention.frame.SMALL", 0)
    copied = []

    def attend(q, k, v, heads):
        copied.append(len(q) // 2 * k.shape[1])
        return scaled_dot_product(q, k, v, heads)

    lean = frame_attention(q, k, v, attend=attend, **options(kind, 5, (4, 6), ratio))
    torch.testing.assert_close(lean, expected, rtol=0, atol=1e-12)
    assert len(copied) == {"first-frame": 3, "middle-frame": 3, "per-frame": 1}.get(kind, 5)
    if kind != "dense":  # whose only tokens are the clip's own
        assert max(copied) <= 5 * 24


@pytest.mark.parametrize("kind", ["FFAM", "SCA", "first-frame", "dense", "per-frame", "middle-frame"])
@pytest.mark.parametrize("small", [0, 2**20])
def test_gradients_equal_the_reference(kind, small, monkeypatch):
    monkeypatch.setattr("ei2_modules.attention.frame.SMALL", small)
    grads = []
    for f in (
        lambda q, k, v: frame_attention(q, k, v, **options(kind, 3, (3, 5))),
        lambda q, k, v: slow_attention(q, k, v, 3, (3, 5), kind, 2),
    ):
        qkv = tensors(2, 3, (3, 5)).requires_grad_()
        f(*qkv).square().sum().backward()
        grads.append(qkv.grad)
    torch.testing.assert_close(*grads, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("rows", "tokens", "frames"), [(5, 16, 2), (4, 15, 2), (4, 17, 4)])
def test_wrong_shapes_are_refused(rows, tokens, frames):
    x = torch.zeros(rows, tokens, DIM)
    with pytest.raises(EI2Error, match=f"{frames} frames at 4x4"):
        frame_attention(x, x, x, **options("FFAM", frames, (4, 4)))


def test_layout_is_heads_last():
    """Heads split the channels in the order the pretrained projections use."""
    q, k, v = tensors(1, 1, (4, 4))
    out = rearrange(scaled_dot_product(q, k, v, HEADS), "b l (h d) -> h b l d", h=HEADS)
    half = slice(0, DIM // HEADS)
    torch.testing.assert_close(out[0], scaled_dot_product(q[..., half], k[..., half], v[..., half], 1))


@pytest.mark.parametrize(
    ("kind", "without", "with_gradients"),
    [
        ("FFAM", 8, 1),
        ("SCA", 4, 1),
        ("first-frame", 2, 1),
        ("dense", 8, 8),
        ("per-frame", 1, 1),
        ("middle-frame", 2, 1),
    ],
)
def test_so_few_frames_at_once_that_copies_stay_small(kind, without, with_gradients):
    """Half of k's tokens are copied at the most: 4096 of 8 frames of 1024 tokens. FFAM at r = 2 sees 2816 of them."""
    k = torch.empty(8, 1024, 160, device="meta")
    for gradients, count in ((False, without), (True, with_gradients)):
        found = groups(ATTENTIONS[kind], k, 8, (32, 32), 2, gradients)
        assert len(found) == count and [i for some in found for i in range(8)[some]] == list(range(8))
