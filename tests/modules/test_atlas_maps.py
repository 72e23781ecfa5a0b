"""Maps of an atlas: splines against the recursive definition, derivatives against autograd, robust affine motion."""

import pytest
import torch

from ei2_modules.atlas import affine, spline
from ei2_modules.atlas.maps import Maps, axes, extent, half, pixels, to_sampling


def slow_spline(x, i, order=3):
    """Cox and de Boor's recursion for integer knots, the i-th spline beginning at knot i."""
    if order == 0:
        return float(i <= x < i + 1)
    left, right = slow_spline(x, i, order - 1), slow_spline(x, i + 1, order - 1)
    return (x - i) / order * left + (i + order + 1 - x) / order * right


def bent(n=3, cells=(3, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    plane = torch.eye(3)[:2] + 0.1 * torch.randn(n, 2, 3, generator=generator)
    return Maps(plane, 0.1 * torch.randn(n, 2, cells[0] + 3, cells[1] + 3, generator=generator))


@pytest.mark.parametrize("cells", [1, 3, 8])
@pytest.mark.parametrize("position", [0.0, 0.13, 0.5, 0.77, 0.999])
def test_splines_are_those_of_the_recursion(cells, position):
    found = spline.weights(torch.tensor(position, dtype=torch.float64), cells)
    assert found.tolist() == pytest.approx([slow_spline(position * cells, i - 3) for i in range(cells + 3)], abs=1e-9)
    assert found.sum().item() == pytest.approx(1)


def test_beyond_the_border_counts_the_border():
    outside, border = (spline.weights(torch.tensor(places), 4) for places in ([-0.5, 1.7], [0.0, 1.0]))
    assert torch.equal(outside, border)


def test_slopes_are_the_derivative():
    position = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    weights = spline.weights(position, 5)
    for i in range(8):
        (slope,) = torch.autograd.grad(weights[:, i].sum(), position, retain_graph=True)
        assert torch.allclose(slope, spline.slopes(position, 5)[:, i])


@pytest.mark.parametrize("size", [(6, 10), (10, 6), (7, 7)])
def test_a_plane_of_control_points_is_a_plane(size):
    """Offsets can do all that affine maps can, up to the border."""
    rows, columns = torch.meshgrid(torch.arange(-1.0, 5), torch.arange(-1.0, 4), indexing="ij")
    found = spline.surface((2 * rows / 3 + 3 * columns / 2)[None, None], size)[0, 0]
    y, x = (((torch.arange(n) + 0.5) / n) for n in size)
    assert torch.allclose(found, 2 * y[:, None] + 3 * x, atol=1e-5)


@pytest.mark.parametrize("size", [(6, 10), (10, 6), (7, 7)])
def test_dense_and_points_agree(size):
    maps = bent()
    points = pixels(size, torch.zeros(())).flatten(0, 1).expand(3, -1, -1)
    assert torch.allclose(maps.dense(size).flatten(1, 2), maps.at(points, size), atol=1e-6)
    assert torch.equal(maps[[2]].dense(size)[0], maps.dense(size)[2])
    assert torch.allclose(Maps(maps.affine).dense(size).flatten(1, 2), Maps(maps.affine).at(points, size), atol=1e-6)


@pytest.mark.parametrize("flat", [False, True])
def test_the_jacobian_is_the_derivative(flat):
    size, maps = (6, 10), bent()
    maps = Maps(maps.affine) if flat else maps
    points = (1.8 * torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(2)) - 0.9) * torch.tensor(extent(size))
    found = maps.jacobian(points, size)
    whole = torch.autograd.functional.jacobian(lambda p: maps.at(p, size), points)  # (3, 5, 2, 3, 5, 2)
    for n in range(3):
        for p in range(5):
            assert torch.allclose(found[n, p], whole[n, p, :, n, p], atol=1e-5)


def test_units():
    """One scale for x and y, the middle at 0, and the border at extent."""
    x, y = axes((4, 8), torch.zeros(()))
    assert (x.tolist(), y.tolist()) == (
        [-0.875, -0.625, -0.375, -0.125, 0.125, 0.375, 0.625, 0.875],
        [-0.375, -0.125, 0.125, 0.375],
    )
    assert half((4, 8)) == 4 and extent((4, 8)) == (1, 0.5)
    assert to_sampling(torch.tensor([1.0, 0.5]), (4, 8)).tolist() == [1, 1]


TRUE = torch.tensor([[0.9, -0.2, 0.1], [0.15, 1.05, -0.05]])


def observed(outliers, seed=3):
    """(points, targets): so many of a hundred move elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    points = 2 * torch.rand(400, 2, generator=generator) - 1
    targets = points @ TRUE[:, :2].T + TRUE[:, 2] + 0.002 * torch.randn(400, 2, generator=generator)
    wrong = torch.arange(400) % 100 < outliers
    return points, torch.where(wrong[:, None], points + torch.tensor([0.3, 0.2]), targets)[None]


@pytest.mark.parametrize("outliers", [0, 20, 40])
def test_outliers_do_not_pull(outliers):
    points, targets = observed(outliers)
    assert torch.allclose(affine.fit(points, targets, torch.ones(1, 400), 128)[0], TRUE, atol=2e-3)


def test_plain_least_squares_would_be_pulled():
    points, targets = observed(40)
    homogeneous = torch.cat([points, torch.ones(400, 1)], dim=1)
    plain = torch.linalg.lstsq(homogeneous, targets[0]).solution.T
    assert (plain - TRUE).abs().max() > 0.02


def test_weights_choose_and_nothing_is_no_fault():
    points, targets = observed(70)  # most move elsewhere, and the weights leave them out
    weight = (torch.arange(400) % 100 >= 70).float()[None]
    assert torch.allclose(affine.fit(points, targets, weight, 128)[0], TRUE, atol=2e-3)
    assert affine.fit(points, targets, torch.zeros(1, 400), 128).isfinite().all()
