"""Local blend against the published formula, and what that formula cannot do: other sizes, levels, windows."""

import pytest
import torch
import torch.nn.functional as F

from ei2_modules.attention.control.blend import LocalBlend, WordMaps, dilate
from ei2_modules.errors import EI2Error


def some_maps(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) ** 4


def published(source, target, threshold, size):
    """Video-P2P's mask: source and target (layers, frames, heads, 16, 16, tokens chosen) of all steps summed."""
    masks = []
    for maps in (source, target):
        maps = maps.sum(-1).mean((0, 2))[:, None]
        maps = F.interpolate(F.max_pool2d(maps, (3, 3), (1, 1), padding=(1, 1)), size=size)
        masks.append(maps / maps.amax((2, 3), keepdim=True) > threshold)
    return masks[0] | masks[1]


@pytest.mark.parametrize("threshold", [0.3, 0.6])
def test_the_published_mask(threshold):
    """Five layers of eight heads at 16x16, three steps, latents of 64x64."""
    steps = some_maps(3, 2, 5, 4, 8, 16, 16, 2)  # steps, sides, layers, frames, heads, h, w, tokens
    steps *= some_maps(2, 1, 4, 1, 16, 16, 1, seed=1) ** 8  # seen in few places
    blend = LocalBlend(4, (64, 64), threshold, levels=(0.25, 0.25))
    for step in steps:
        for side, layers in zip(("source", "target"), step, strict=True):
            for layer in layers:
                blend.words[side].add(layer.mean((1, -1)).flatten(1), (16, 16))
    expected = published(*steps.sum(0), threshold, (64, 64))
    assert 0.05 < expected.float().mean() < 0.95
    assert torch.equal(blend.mask() > 0, expected)


def slow_mask(maps, size, latent, threshold):
    """One frame, (h, w): greatest of the neighbours, place of the latent by place, over the greatest of all."""
    h, w = size
    pooled = [
        [
            max(maps[a][b] for a in range(max(y - 1, 0), min(y + 2, h)) for b in range(max(x - 1, 0), min(x + 2, w)))
            for x in range(w)
        ]
        for y in range(h)
    ]
    rows = [
        [pooled[int((y + 0.5) * h / latent[0])][int((x + 0.5) * w / latent[1])] for x in range(latent[1])]
        for y in range(latent[0])
    ]
    top = max(max(row) for row in rows)
    return torch.tensor([[value / top > threshold for value in row] for row in rows])


@pytest.mark.parametrize(
    ("latent", "size", "levels"),
    [
        ((16, 16), (16, 16), (1, 1)),
        ((16, 16), (8, 8), (0.5, 0.5)),
        ((12, 20), (6, 10), (0.5, 1)),
        ((27, 15), (14, 8), (0.5, 0.5)),  # odd sides are rounded up
        ((27, 15), (4, 2), (0.125, 0.125)),
        ((5, 7), (5, 7), (1, 1)),
    ],
)
def test_any_size(latent, size, levels):
    maps = some_maps(3, size[0] * size[1])
    blend = LocalBlend(3, latent, 0.4, levels=levels)
    blend.words["target"].add(maps, size)
    expected = torch.stack([slow_mask(frame.view(size).tolist(), size, latent, 0.4) for frame in maps])
    assert torch.equal(blend.mask()[:, 0] > 0, expected)
    assert blend.mask().shape == (3, 1, *latent)


def test_levels_are_added_up():
    """Each is pooled on its own grid, brought to the latent's, and counts once a layer."""
    fine, coarse, words = some_maps(2, 64), some_maps(2, 16, seed=1), WordMaps(2, (8, 8), (0.5, 1))
    for maps, size in ((fine, (8, 8)), (coarse, (4, 4)), (coarse, (4, 4)), (some_maps(2, 4), (2, 2))):
        words.add(maps, size)
    total = dilate(fine.view(2, 1, 8, 8), 1) + 2 * dilate(coarse.view(2, 1, 4, 4), 1).repeat_interleave(
        2, 2
    ).repeat_interleave(2, 3)
    torch.testing.assert_close(words.relative(), total / total.amax((2, 3), keepdim=True))


@pytest.mark.parametrize(
    ("latent", "size", "levels", "counts"),
    [
        ((64, 64), (64, 64), (1, 1), True),
        ((64, 64), (32, 32), (1, 1), False),
        ((64, 64), (16, 16), (0.25, 0.25), True),
        ((64, 64), (16, 16), (0.25, 0.5), True),
        ((64, 64), (8, 8), (0.25, 1), False),
        ((64, 64), (8, 8), (0, 1), True),
        ((96, 54), (24, 14), (0.25, 0.25), True),
        ((96, 54), (12, 7), (0.125, 0.125), True),
        ((96, 54), (12, 7), (0.25, 0.25), False),
        ((9, 9), (2, 2), (0.25, 0.25), True),  # 9 -> 5 -> 3 -> 2 is a level further, but nearer to this one
    ],
)
def test_which_levels_count(latent, size, levels, counts):
    assert WordMaps(1, latent, levels).counts(size) is counts


def test_windows_add_up_to_the_clip():
    maps = some_maps(6, 16)
    whole, parts = WordMaps(6, (4, 4)), WordMaps(6, (4, 4))
    whole.add(maps, (4, 4))
    for window in ([3, 4, 5], [0, 2], [1]):
        parts.add(maps[window], (4, 4), window)
    assert torch.equal(parts.relative(), whole.relative())


def spot(y, x, value=1.0):
    """One frame of 9x9 that looks at one place."""
    maps = torch.zeros(9, 9)
    maps[y, x] = value
    return maps.flatten()[None]


def square(y, x, radius):
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1] = 1
    return mask


def blended(dilation=0, **added):
    blend = LocalBlend(1, (9, 9), 0.5, dilation)
    for side, maps in added.items():
        words = blend.negative if side.startswith("not_") else blend.words
        words[side.removeprefix("not_")].add(maps, (9, 9))
    return blend.mask()


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (blended(source=spot(2, 2)), square(2, 2, 1)),
        (blended(target=spot(2, 2)), square(2, 2, 1)),
        (blended(source=spot(0, 0), target=spot(6, 6, 0.01)), square(0, 0, 1) + square(6, 6, 1)),
        (blended(source=spot(0, 0) + spot(6, 6, 0.5)), square(0, 0, 1)),
        (blended(source=spot(2, 2), not_source=torch.zeros(1, 81)), square(2, 2, 1)),
        (blended(source=spot(2, 2), not_target=spot(2, 3)), square(2, 2, 1) - square(2, 3, 0)),
        (blended(source=spot(2, 2), not_source=spot(2, 3)), square(2, 2, 1) - square(2, 3, 0)),
        (blended(source=spot(4, 4), dilation=2), square(4, 4, 3)),
        (blended(source=torch.zeros(1, 81)), torch.zeros(1, 1, 9, 9)),  # seen nowhere
    ],
    ids=[
        "source",
        "target",
        "union, each by its own greatest",
        "not at the threshold",
        "negative nowhere",
        "negative",
        "negative source",
        "dilated",
        "nowhere",
    ],
)
def test_masks(mask, expected):
    assert torch.equal(mask, expected)


def test_frames_are_measured_by_their_own():
    blend = LocalBlend(2, (9, 9), 0.5)
    blend.words["source"].add(torch.cat([spot(2, 2, 1e-3), spot(5, 5, 1.0)]), (9, 9))
    assert torch.equal(blend.mask(), torch.cat([square(2, 2, 1), square(5, 5, 1)]))


def test_latents_change_inside_only():
    x, source = torch.randn(2, 1, 4, 9, 9)
    blend = LocalBlend(1, (9, 9), 0.5)
    blend.words["source"].add(spot(2, 2), (9, 9))
    inside = square(2, 2, 1).bool()
    found = blend(x, source)
    torch.testing.assert_close(found[inside.expand_as(x)], x[inside.expand_as(x)])
    assert torch.equal(found[~inside.expand_as(x)], source[~inside.expand_as(x)])


def test_from_least():
    """What every place gets alike is no sign of a word."""
    words = WordMaps(1, (9, 9))
    words.add(0.4 + 0.1 * spot(2, 2), (9, 9))
    assert words.relative().min() > 0.7
    assert torch.allclose(words.relative(pool=False, from_least=True), square(2, 2, 0), atol=1e-5)


@pytest.mark.parametrize(
    ("added", "named"),
    [([], "only none at all"), ([((4, 4), 16)], "only 4x4"), ([((4, 4), 16), ((2, 2), 4)], "only 2x2, 4x4")],
)
def test_nothing_seen_at_these_levels(added, named):
    blend = LocalBlend(1, (8, 8))
    for size, places in added:
        blend.words["source"].add(torch.rand(1, places), size)
    with pytest.raises(EI2Error, match=named) as error:
        blend.mask()
    assert "8x8" in str(error.value)
