"""Noise that moves with a mask: the same values, elsewhere."""

import pytest
import torch

from ei2_modules.attention.control.moving_noise import centroids, moving_noise, renew


def boxes(places, size=(12, 20), sides=(3, 5)):
    """A box at each (y, x), None for a frame without."""
    mask = torch.zeros(len(places), 1, *size)
    for frame, place in zip(mask, places, strict=True):
        if place is not None:
            frame[0, place[0] : place[0] + sides[0], place[1] : place[1] + sides[1]] = 1
    return mask


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("size", [(12, 20), (20, 12), (9, 9), (64, 64)])
@pytest.mark.parametrize("places", [[(1, 2), (1, 3), (4, 0)], [(0, 4), (6, 4)], [(3, 3)]])
def test_the_object_keeps_its_noise(places, size):
    mask = boxes(places, size)
    noise = moving_noise(mask, 4, generator())
    assert noise.shape == (len(places), 4, *size) and noise.dtype == torch.float32
    inside = [n[:, m[0] > 0] for n, m in zip(noise, mask, strict=True)]
    assert all(torch.equal(values, inside[0]) for values in inside)
    assert len(places) == 1 or not torch.equal(noise[0], noise[1])


def test_its_values_are_one_patch():
    """So their variance is exactly that of the patch, in every frame."""
    noise = moving_noise(boxes([(1, 2), (5, 9), (0, 0)]), 2, generator())
    patch = torch.randn(2, 12, 20, generator=generator())
    assert torch.equal(noise[0], patch)
    for frame in noise:
        assert torch.equal(frame.flatten(1).sort().values, patch.flatten(1).sort().values)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        ([(1, 2), None, (3, 6)], [(2, 4), (3, 6), (4, 8)]),  # half way
        ([None, (1, 2), (3, 6)], [(2, 4), (2, 4), (4, 8)]),
        ([(1, 2), (3, 6), None, None], [(2, 4), (4, 8), (4, 8), (4, 8)]),
        ([None, None], [(0, 0), (0, 0)]),
        ([(1, 2), (1, 2)], [(2, 4), (2, 4)]),
    ],
)
def test_frames_without_a_mask(places, expected):
    assert centroids(boxes(places)).tolist() == [list(map(float, place)) for place in expected]
    noise = moving_noise(boxes(places), 3, generator())
    for frame, (y, x) in zip(noise, expected, strict=True):
        shift = (y - expected[0][0], x - expected[0][1])
        assert torch.equal(frame, noise[0].roll(shift, (1, 2)))


def test_a_soft_mask_weighs():
    mask = torch.zeros(1, 1, 4, 8)
    mask[0, 0, 1, 2], mask[0, 0, 1, 6] = 0.75, 0.25
    assert centroids(mask).tolist() == [[1, 3]]


def test_it_moves_by_the_nearest_pixel():
    mask = torch.zeros(3, 1, 4, 8)
    for frame, far in zip(mask, (0.0, 0.4, 0.6), strict=True):  # so much of a pixel to the right
        frame[0, 1, 2], frame[0, 1, 3] = 1 - far, far
    noise = moving_noise(mask, 2, generator())
    assert torch.equal(noise[1], noise[0])
    assert torch.equal(noise[2], noise[0].roll(1, 2))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("inside", [0.0, 0.5, 1.0])
def test_renewed_noise_keeps_its_variance(share, inside):
    sigma, shape = 13.0, (4, 4, 64, 64)
    x, noise = sigma * torch.randn(shape, generator=generator(1)), torch.randn(shape, generator=generator(2))
    found = renew(x, torch.full((4, 1, 64, 64), inside), noise, sigma, share)
    assert float(found.std()) == pytest.approx(sigma, rel=0.02)
    part = float((found * noise).mean() / sigma)  # the correlation with what is new
    assert part == pytest.approx((share * inside) ** 0.5, abs=0.02)


def test_outside_the_mask_nothing_is_renewed():
    mask = boxes([(1, 2), None])
    x, noise = torch.randn(2, 2, 4, 12, 20)
    found, inside = renew(x, mask, noise, 2.0), mask.bool().expand_as(x)
    assert torch.equal(found[~inside], x[~inside])
    assert torch.equal(found[inside], 2 * noise[inside])
