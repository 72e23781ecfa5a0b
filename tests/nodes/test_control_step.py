"""What an edit takes at one layer, on toy tensors beside the same written out."""

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


def step(edit=None, blend=None, fused=None, size=SIZE, **chosen):
    shares = {"cross_share": 0.0, "self_share": 0.0} | chosen
    return steps.Step(edit or prompt_edit(), options.ControlOptions(**shares), 0, 1, size, blend, fused)


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


@pytest.mark.parametrize("window", [None, (4, 2, 0)])
def test_fused_self_attention(window):
    """The edit's own where the mask of the clip is 1, of the window's frames; the source's elsewhere."""
    mask = (draw(5, 1, *SIZE, seed=6) > 0).float() if window else (draw(FRAMES, 1, *SIZE, seed=6) > 0).float()
    found = self_attention(step(self_share=1.0, fused=mask), extra(window=window))
    own, taken = plain(*OWN, VALUES), plain(*(x.repeat(2, 1, 1) for x in SOURCE), VALUES)
    rows = (mask if window is None else mask[list(window)]).flatten(1).repeat(2, 1)[..., None]
    torch.testing.assert_close(found, torch.where(rows == 1, own, taken))
    assert 0 < rows.mean() < 1


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
