"""Aggregation of edited key frames against slow, obvious readings, and on rendered clips."""

from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from ei2_modules.atlas import aggregate
from ei2_modules.atlas.aggregate import METHODS, Parts, aggregated, closed, matched_mean, mean, median, offsets
from ei2_modules.atlas.atlas import Atlas, Layer
from ei2_modules.atlas.key_frames import KeyFrames
from ei2_modules.atlas.maps import Maps
from ei2_modules.atlas.propagate import propagated, splatted
from ei2_modules.atlas.refine import View, loss, refined
from ei2_modules.atlas.texture import SEEN, Box, sample


def some_parts(k, seed=0):
    """Of a few texels: some seen by all, some by one, one by none."""
    generator = torch.Generator().manual_seed(seed)
    covers = torch.rand(k, 5, 6, generator=generator) * (torch.rand(k, 5, 6, generator=generator) < 0.7)
    covers[:, 0, 0] = 0
    return Parts(torch.rand(k, 3, 5, 6, generator=generator) * (covers > 0)[:, None], covers)


def slow(parts, of_texel):
    """Texel by texel: what `of_texel` makes of the (value, cover) of those that fell on it."""
    found = torch.zeros(parts.pictures.shape[1:])
    for c in range(3):
        for y in range(5):
            for x in range(6):
                values = [
                    (p[c, y, x].item(), w[y, x].item()) for p, w in zip(parts.pictures, parts.covers, strict=True)
                ]
                found[c, y, x] = of_texel(values)
    return found


def slow_mean(values):
    total = sum(w for _, w in values)
    return sum(v * w for v, w in values) / total if total else 0.0


def slow_median(values):
    seen = sorted(v for v, w in values if w > SEEN)
    n = len(seen)
    return (seen[(n - 1) // 2] + seen[n // 2]) / 2 if n else 0.0


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(("fast", "of_texel"), [(mean, slow_mean), (median, slow_median)])
def test_as_read_texel_by_texel(fast, of_texel, k):
    parts = some_parts(k)
    torch.testing.assert_close(fast(parts), slow(parts, of_texel), rtol=0, atol=1e-5)


@pytest.mark.parametrize("k", [1, 2, 4])
def test_offsets_are_the_least_squares(k):
    """Against gradient descent on the very sum, with all pairs written out."""
    parts = some_parts(k)
    shifts = torch.zeros(k, 3, requires_grad=True)
    for _ in range(400):
        total = sum(
            (
                torch.minimum(parts.covers[i], parts.covers[j])
                * (parts.pictures[i] + a[:, None, None] - parts.pictures[j] - b[:, None, None]).square()
            ).sum()
            for i, a in enumerate(shifts)
            for j, b in enumerate(shifts)
            if i < j
        )
        if k == 1:
            break
        (slope,) = torch.autograd.grad(total, shifts)
        shifts = (shifts - 0.02 * slope).detach().requires_grad_()
    torch.testing.assert_close(offsets(parts), shifts.detach(), rtol=0, atol=1e-4)


def test_shifted_colours_agree_again():
    generator = torch.Generator().manual_seed(3)
    covers = torch.rand(3, 5, 6, generator=generator)
    covers[0, :, 4:], covers[2, :, :2] = 0, 0
    truth, shift = torch.rand(3, 5, 6, generator=generator), torch.randn(3, 3, 1, 1, generator=generator) * 0.1
    shift = shift - shift.mean(0)
    shifted = Parts((truth + shift) * (covers > 0)[:, None], covers)
    torch.testing.assert_close(matched_mean(shifted), truth, rtol=0, atol=1e-5)
    assert (mean(shifted) - truth).abs().max() > 0.02


@pytest.mark.parametrize("seed", range(20))
def test_offsets_shift_nothing_on_average(seed):
    """The sum alone does not say by how much all are shifted; rounding must not."""
    parts = some_parts(8, seed)
    found = offsets(Parts(parts.pictures, 1e3 * parts.covers))
    assert found.mean(0).abs().max() < 1e-3 and found.abs().max() < 0.5


def test_key_frames_that_share_nothing_are_left_as_they_are():
    covers = torch.zeros(2, 5, 6)
    covers[0, :, :3], covers[1, :, 3:] = 1, 1
    assert offsets(Parts(torch.rand(2, 3, 5, 6), covers)).abs().max() == 0


def test_gaps_of_a_texel_are_closed_and_borders_are_not_moved():
    seen = torch.zeros(7, 9, dtype=torch.bool)
    seen[1:6, 0:5] = True
    whole = seen.clone()
    seen[3, 2] = seen[2, 0] = False
    assert torch.equal(closed(seen), whole)


SIZE, TEXELS = (24, 32), (30, 40)


@pytest.fixture
def sliding():
    """An object before a background, both textured, that moves two pixels a frame."""
    generator = torch.Generator().manual_seed(0)
    box = Box(-1.25, -1.0, 1.25, 1.0, *TEXELS)
    moves = torch.eye(3)[None, :2].repeat(4, 1, 1)
    moves[:, 0, 2] = -torch.arange(4) * 2 / 16
    textures = torch.nn.functional.interpolate(
        torch.rand(3, 3, 6, 8, generator=generator), TEXELS, mode="bicubic", align_corners=False
    ).clamp(0, 1)
    seen = torch.ones(TEXELS, dtype=torch.bool)
    layers = [Layer(Maps(moves), box, textures[0], seen), Layer(Maps(moves * 0 + moves[:1]), box, textures[1], seen)]
    alpha = torch.zeros(4, 1, *SIZE, dtype=torch.uint8)
    for t in range(4):
        alpha[t, 0, 6:18, 6 + 2 * t : 18 + 2 * t] = 255
    atlas = Atlas(SIZE, tuple(layers), (alpha,))
    frames = atlas.render(range(4))
    edited = atlas.with_layer(0, layers[0].replaced(textures[2])).render(range(4))
    return SimpleNamespace(atlas=atlas, frames=frames, edited=edited, keys=KeyFrames(0, (0, 3)))


def put_together(s, edited=None, method="mean", keys=None):
    keys = keys or s.keys
    frames = s.frames[list(keys.frames)]
    layer, known = aggregated(s.atlas, keys, s.edited[list(keys.frames)] if edited is None else edited, frames, method)
    return s.atlas.with_layer(keys.layer, layer).over(s.frames, list(range(4))), layer, known


@pytest.mark.parametrize("method", METHODS)
def test_an_edit_of_key_frames_is_seen_in_the_others(sliding, method, monkeypatch):
    monkeypatch.setattr(aggregate, "refined", partial(refined, epochs=3))
    drawn, layer, known = put_together(sliding, method=method)
    own = (sliding.atlas.alpha(range(4), 0) == 1).expand_as(drawn)
    assert (drawn - sliding.edited)[own].abs().mean() < 0.01 < (sliding.frames - sliding.edited)[own].abs().mean() / 10
    assert torch.equal(drawn[~own], sliding.frames[~own])
    assert 0.1 < known.mean() < 0.3 and torch.equal(layer.edited, known)


@pytest.mark.parametrize("method", METHODS[:3])
def test_what_one_key_frame_shows_is_not_darkened(sliding, method):
    """The second shows half of the object."""
    alpha = sliding.atlas.alphas[0].clone()
    alpha[3, :, :, 18:] = 0
    sliding.atlas = Atlas(SIZE, sliding.atlas.layers, (alpha,))
    _, layer, known = put_together(sliding, method=method)
    _, alone, _ = put_together(sliding, method="mean", keys=KeyFrames(0, (0,)))
    right = (known > 0) & (torch.arange(TEXELS[1]) > 17)
    assert right.sum() > 20
    torch.testing.assert_close(layer.texture[:, right], alone.texture[:, right], rtol=0, atol=0.03)


def test_texels_between_pixels_are_filled(sliding):
    """Of a picture that is finer than the frames, no texel inside the object is left black."""
    fine = tuple(3 * side for side in TEXELS)
    layers = tuple(
        replace(
            layer,
            box=replace(layer.box, rows=fine[0], columns=fine[1]),
            texture=torch.full((3, *fine), 0.5),
            observed=torch.ones(fine, dtype=torch.bool),
        )
        for layer in sliding.atlas.layers
    )
    sliding.atlas, bright = replace(sliding.atlas, layers=layers), torch.full((1, 3, *SIZE), 0.9)
    _, layer, known = put_together(sliding, bright, keys=KeyFrames(0, (0,)))
    assert known.sum() > 800 and layer.texture[:, known > 0].min() > 0.85


def test_nothing_edited_changes_nothing(sliding):
    drawn, layer, _ = put_together(sliding, sliding.frames[[0, 3]])
    assert torch.equal(drawn, sliding.frames) and torch.equal(layer.texture, sliding.atlas.layers[0].texture)


def test_a_spot_changes_a_spot(sliding):
    edited = sliding.frames[[0, 3]].clone()
    for k, t in enumerate(sliding.keys.frames):
        edited[k, :, 10:14, 10 + 2 * t : 14 + 2 * t] = 1.0
    drawn, layer, _ = put_together(sliding, edited)
    for t in range(4):
        changed = (drawn[t] != sliding.frames[t]).any(0)
        assert changed[10:14, 10 + 2 * t : 14 + 2 * t].all() and changed.sum() <= 36
        assert drawn[t, :, 11:13, 11 + 2 * t : 13 + 2 * t].min() > 0.95
    assert layer.edited.sum() < 60


def test_light_is_taken_off_and_put_on_again(sliding):
    gains = torch.zeros(4, 3, 4, 4)
    gains[3] = -0.5
    lit = Atlas(SIZE, sliding.atlas.layers, sliding.atlas.alphas, gains)
    mean_lit, cover = splatted(lit, 0, 3, lit.render([3])[0])
    inner = cover > 0.6
    assert (mean_lit - lit.layers[0].texture)[:, inner].abs().mean() < 0.02
    found = propagated(lit, 0, 0, lit.render([0])[0], 3)
    own = lit.alpha([3], 0)[0, 0] == 1
    assert (found - lit.render([3])[0])[:, own].abs().mean() < 0.02


def test_propagation_lands_where_the_object_is_and_fills_the_rest(sliding):
    found = propagated(sliding.atlas, 0, 0, sliding.edited[0], 2)
    own = sliding.atlas.alpha([2], 0)[0, 0] == 1
    assert (found - sliding.edited[2])[:, own].abs().mean() < 0.02
    assert found.amin(0)[~own].mean() > 0.05  # not black


def test_the_network_learns_and_leaves_the_generator_alone(sliding):
    """From a wrong picture the loss falls; the first epoch is that of the picture itself."""
    box, uv = sliding.atlas.layers[0].box, sliding.atlas.maps([0], 0)
    seen, picture = sliding.atlas.seen([0])[0], torch.full((3, *TEXELS), 0.5)
    view, losses = View(uv, sliding.edited[:1], seen, 1.0), []
    before = torch.get_rng_state()
    with torch.inference_mode():
        found = refined(picture.clone(), box, [view], after_step=lambda *step: losses.append(step[2]), epochs=40)
    assert losses[0] == pytest.approx(((sample(picture, uv, box) - sliding.edited[:1]).abs() * seen).mean().item())
    assert loss(found, box, [view]) < 0.97 * losses[0] and losses[-1] < losses[0]
    assert torch.equal(torch.get_rng_state(), before) and not found.requires_grad
