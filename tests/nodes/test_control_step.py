"""What an edit takes at one layer, on toy tensors beside the same written out."""

import itertools
from types import SimpleNamespace

import pytest
import torch

from .controlling import options, prompt_edit
from .mini import pack

steps, blends, maps = (
    pack(name)
    for name in ("nodes.host.control.step", "ei2_modules.attention.control.blend", "ei2_modules.attention.control.maps")
)
FRAMES, SIZE, HEADS, WIDTH, TOKENS = 3, (4, 4), 2, 8, 77
PLACES = SIZE[0] * SIZE[1]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def extra(texts=(0, 1), size=SIZE, window=None):
    """Transformer options of a call."""
    found = {
        "n_heads": HEADS, "attn_precision": None, "block": ("output", 1), "block_index": 0,
        "cond_or_uncond": list(texts), "activations_shape": (FRAMES * len(texts), WIDTH, *size),
    }  # fmt: skip
    return found if window is None else found | {"context_window": SimpleNamespace(index_list=list(window))}


def step(edit=None, blend=None, fusing=None, size=SIZE, **chosen):
    shares = {"cross_share": 0.0, "self_share": 0.0} | chosen
    return steps.Step(edit or prompt_edit(), options.ControlOptions(**shares), 0, 1, size, blend, fusing)


def plain(q, k, v):
    return (
        torch.nn.functional.scaled_dot_product_attention(
            *(x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
        )
        .transpose(1, 2)
        .flatten(2)
    )


SOURCE = draw(FRAMES, PLACES, WIDTH, seed=1), draw(FRAMES, PLACES, WIDTH, seed=2)
OWN = draw(2 * FRAMES, PLACES, WIDTH, seed=3), draw(2 * FRAMES, PLACES, WIDTH, seed=4)
VALUES = draw(2 * FRAMES, PLACES, WIDTH, seed=5)


def self_attention(made, call, source=SOURCE, own=OWN, v=VALUES):
    """Recorded of the source, and used for an edit under two texts."""
    steps.Recording(made).self_attention(lambda q, k: q, *source, call | {"cond_or_uncond": [0]})
    return steps.Editing(made).self_attention(lambda q, k: plain(q, k, v), *own, call)


def place_by_place(q, k, tokens, size, to, threshold):
    """(n, l, 1): a frame's maps, mean over heads and words, greatest of the neighbours, at every other place where
    the grid is smaller and at every place as often as it is larger, above a share of the greatest that is left."""
    n, masks = len(q), []
    for frame in range(n):
        seen = torch.zeros(size)
        for y, x in itertools.product(*map(range, size)):
            for head in range(HEADS):
                d = slice(head * WIDTH // HEADS, (head + 1) * WIDTH // HEADS)
                scores = k[frame, :, d] @ q[frame, y * size[1] + x, d] / (WIDTH // HEADS) ** 0.5
                seen[y, x] += float(scores.softmax(0)[tokens].sum())
        rows = range(to[0]), range(to[1])
        pooled = torch.zeros(to)
        for y, x in itertools.product(*rows):
            a, b = y * size[0] // to[0], x * size[1] // to[1]
            pooled[y, x] = seen[max(a - 1, 0) : a + 2, max(b - 1, 0) : b + 2].max()
        masks.append((pooled > threshold * pooled.max()).flatten())
    return torch.stack(masks)[..., None]


@pytest.mark.parametrize("window", [None, (4, 2, 0)])
@pytest.mark.parametrize("to", [SIZE, (2, 2), (8, 8)])
def test_fused_self_attention(window, to):
    """The edit's own where the source of this very step sees the word, of the window's frames; the source's elsewhere.
    The word is looked for at the latent's quarter and used at that size, at half and at twice of it."""
    frames, places = 5 if window else FRAMES, to[0] * to[1]
    made = step(prompt_edit(blend="red"), None, blends.WordMaps(frames, (16, 16), (0.25, 0.25)), size=(16, 16),
                self_share=1.0, fuse_threshold=0.7)  # fmt: skip
    source = draw(FRAMES, places, WIDTH, seed=1), draw(FRAMES, places, WIDTH, seed=2)
    own, v = (
        (draw(2 * FRAMES, places, WIDTH, seed=3), draw(2 * FRAMES, places, WIDTH, seed=4)),
        draw(2 * FRAMES, places, WIDTH, seed=5),
    )
    text = 2 * SOURCE[0], draw(FRAMES, TOKENS, WIDTH, seed=7)
    steps.Recording(made).text_attention(None, *text, None, extra([0], window=window), True)
    found = self_attention(made, extra(size=to, window=window), source, own, v)
    rows = place_by_place(*text, made.edit.blend.source, SIZE, to, 0.7).repeat(2, 1, 1)
    taken = plain(*(x.repeat(2, 1, 1) for x in source), v)
    torch.testing.assert_close(found, torch.where(rows, plain(*own, v), taken))
    assert 0 < rows.float().mean() < 1


@pytest.mark.parametrize("texts", [(0, 1), (1, 0), (0,), (1,), (0, 1, 1)])
@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("name", ["self", "temporal", "feature"])
def test_the_negative_takes_maps_of_kinds_of_ours_alone(name, both, texts):
    """Under the prompt, text 0, always; a call may hold either, both in any order, or several of one."""
    made, call = step(**{f"{name}_share": 1.0}, both_texts=both), extra(texts)
    own = [draw(len(texts) * FRAMES, PLACES, WIDTH, seed=seed) for seed in (3, 4)]
    recording, editing, alone = steps.Recording(made), steps.Editing(made), call | {"cond_or_uncond": [0]}
    if name == "feature":
        recording.features(SOURCE[0], alone)
        found, pairs = [editing.features(own[0].clone(), call)], [(SOURCE[0], own[0])]
    elif name == "temporal":
        recording.temporal_attention(*SOURCE, alone)
        found, pairs = editing.temporal_attention(*own, call), zip(SOURCE, own, strict=True)
    else:
        recording.self_attention(lambda q, k: q, *SOURCE, alone)
        found, pairs = editing.self_attention(lambda q, k: (q, k), *own, call), zip(SOURCE, own, strict=True)
    for one, (source, mine) in zip(found, pairs, strict=True):
        parts = [source if both or text == 0 else part for text, part in zip(texts, mine.split(FRAMES), strict=True)]
        assert torch.equal(one, torch.cat(parts))


@pytest.mark.parametrize(("finest", "taken"), [(1.0, True), (0.5, True), (0.25, False)])
def test_maps_finer_than_asked_for_are_not_taken(finest, taken):
    """Of a layer at half of the latent's 8x8."""
    found = self_attention(step(self_share=1.0, size=(8, 8), finest=finest), extra())
    expected = plain(*(x.repeat(2, 1, 1) for x in SOURCE), VALUES) if taken else plain(*OWN, VALUES)
    torch.testing.assert_close(found, expected)


def text_attention(made, out, own, is_plain, texts=(0, 1)):
    source = SOURCE[0], draw(FRAMES, TOKENS, WIDTH, seed=7)
    call = extra(texts)
    steps.Recording(made).text_attention(None, *source, None, call | {"cond_or_uncond": [0]}, True)
    return steps.Editing(made).text_attention(out.clone(), *own, call, is_plain)


def text_of(tokens):
    return OWN[0], draw(2 * FRAMES, tokens, WIDTH, seed=8), draw(2 * FRAMES, tokens, WIDTH, seed=9)


def test_what_another_node_adds_to_text_attention_stays_to_the_last_digit():
    own, added = text_of(TOKENS), draw(2 * FRAMES, PLACES, WIDTH, seed=10)
    out = plain(*own)
    alone = text_attention(step(cross_share=1.0), out, own, True)
    torch.testing.assert_close(text_attention(step(cross_share=1.0), out + added, own, False), alone + added)
    assert (alone[:FRAMES] - out[:FRAMES]).abs().max() > 0.05
    assert torch.equal(alone[FRAMES:], out[FRAMES:])  # what the edit avoids is left alone


def test_a_text_that_the_host_repeats_is_read_once():
    """Beside a longer negative the prompt's tokens stand there twice."""
    q, k, v = text_of(TOKENS)
    twice = q, k.repeat(1, 2, 1), v.repeat(1, 2, 1)
    once = text_attention(step(cross_share=1.0), plain(q, k, v), (q, k, v), True)
    torch.testing.assert_close(text_attention(step(cross_share=1.0), plain(*twice), twice, True), once)


@pytest.mark.parametrize(("blend", "least"), [("green,red", 1), ("green,red,-circle", 0)])
def test_words_that_stay_are_looked_for_on_both_sides(blend, least):
    looked = blends.LocalBlend(FRAMES, SIZE)
    text_attention(step(prompt_edit(blend=blend), looked), plain(*text_of(TOKENS)), text_of(TOKENS), True)
    assert all(words.sums for words in looked.words.values())
    assert [bool(words.sums) for words in looked.negative.values()] == [not least] * 2


@pytest.mark.parametrize("blend", ["red,green", "circle", "circle,-blue"])
@pytest.mark.parametrize(("taken", "share"), [(True, 1.0), (True, 0.0), (False, 1.0)])
def test_whose_maps_a_blend_goes_by(taken, share, blend):
    """Its own, or what it has from the source: of a swapped or kept word then the source's very map."""
    looked = blends.LocalBlend(FRAMES, SIZE)
    made = step(prompt_edit(blend=blend), looked, cross_share=share, blend_taken=taken)
    text_attention(made, plain(*text_of(TOKENS)), text_of(TOKENS), True)
    for sides in (looked.words, looked.negative) if "-" in blend else (looked.words,):
        source, target = sides["source"].relative(), sides["target"].relative()
        assert torch.allclose(source, target, rtol=0, atol=1e-5) is (taken and share > 0)
