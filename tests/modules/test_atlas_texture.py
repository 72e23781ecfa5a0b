"""Pictures of layers: splatted against loops, sampled back, filled where nothing was seen."""

import pytest
import torch

from ei2_modules.atlas.maps import Maps
from ei2_modules.atlas.texture import Box, Splat, fill, sample

BOX = Box(-1.0, -0.6, 1.0, 0.6, 6, 10)


def slow_splat(values, weight, uv, box):
    """(sums of c + 1 channels): pixel by pixel, texel by texel."""
    c, h, w = values.shape
    sums = torch.zeros(c + 1, box.rows, box.columns)
    for i in range(h):
        for j in range(w):
            x = (uv[i, j, 0] - box.left) / (box.right - box.left) * box.columns - 0.5
            y = (uv[i, j, 1] - box.top) / (box.bottom - box.top) * box.rows - 0.5
            for row in range(box.rows):
                for column in range(box.columns):
                    share = max(0.0, 1 - abs(x - column)) * max(0.0, 1 - abs(y - row)) * weight[i, j]
                    sums[:c, row, column] += share * values[:, i, j]
                    sums[c, row, column] += share
    return sums


def film(seed=0, h=5, w=8):
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(*shape, generator=generator) for shape in ((3, h, w), (h, w))]


@pytest.mark.parametrize("shift", [0.0, 0.37, -1.5])  # the last leaves the box in part
def test_splats_are_those_of_the_loops(shift):
    splat, sums = Splat(3, BOX, torch.zeros(())), 0
    for seed in (0, 1):
        values, weight = film(seed)
        uv = Maps(torch.tensor([[[0.9, 0.1, shift], [-0.1, 0.8, 0.05]]])).dense((5, 8))[0]
        splat.add(values, weight, uv)
        sums = sums + slow_splat(values, weight, uv, BOX)
    assert torch.allclose(splat.cover, sums[3], atol=1e-5)
    seen = sums[3] > 1e-3
    assert torch.allclose(splat.mean()[:, seen], (sums[:3] / sums[3])[:, seen], atol=1e-3)


@pytest.mark.parametrize("frames", [1, 3])
def test_sampling_where_texels_lie_gives_them(frames):
    texture = torch.rand(4, 6, 10, generator=torch.Generator().manual_seed(2))
    x, y = (torch.arange(10) + 0.5) / 10 * 2 - 1, ((torch.arange(6) + 0.5) / 6 * 2 - 1) * 0.6
    uv = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).expand(frames, -1, -1, -1)
    found = sample(texture, uv, BOX)
    assert found.shape == (frames, 4, 6, 10)
    assert torch.allclose(found, texture.expand(frames, -1, -1, -1), atol=1e-5)


def test_sampling_is_linear_between_and_repeats_the_border():
    texture = torch.arange(10.0).expand(1, 6, 10)
    uv = torch.tensor([[[[-0.8, 0.0], [0.05, 0.1], [5.0, 0.0], [-9.0, 3.0]]]])
    assert sample(texture, uv, BOX).flatten().tolist() == pytest.approx([0.5, 4.75, 9, 0], abs=1e-4)


@pytest.mark.parametrize("hole", [(slice(2, 4), slice(3, 6)), (slice(0, 6), slice(0, 5)), (slice(0, 0), slice(0, 0))])
def test_what_is_unseen_takes_the_colours_around(hole):
    """Never black: texels that hold nothing must not darken what is edited later."""
    texture, cover = torch.full((3, 6, 10), 0.7), torch.ones(6, 10)
    texture[:, hole[0], hole[1]], cover[hole] = 0.0, 0.0
    assert torch.allclose(fill(texture, cover), torch.full((3, 6, 10), 0.7), atol=1e-5)


def test_what_is_seen_stays():
    texture = torch.rand(3, 12, 9, generator=torch.Generator().manual_seed(3))
    cover = (torch.arange(12) % 3 > 0).float()[:, None].expand(12, 9)
    filled = fill(texture * cover, cover)
    seen = cover > 0
    assert torch.equal(filled[:, seen], texture[:, seen])
    assert filled[:, ~seen].min() > 0 and filled[:, ~seen].max() < 1
