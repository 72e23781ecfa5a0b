"""Networks of Layered Neural Atlases: baked against the published formulas, written out for one point at a time."""

import math

import pytest
import torch

from ei2_modules.atlas import nla, nla_bake
from ei2_modules.atlas.maps import Maps
from ei2_modules.atlas.nla import SIDES, Network, Networks

from ..nla_checkpoint import random_state, random_states, slow, slow_colour, slow_pixel

LANDSCAPE, PORTRAIT, FRAMES = (40, 64), (48, 32), 3


def rough_states():
    """With maps that splines cannot follow."""
    maps = {name: random_state(3, 2, 3, gain=1.5, seed=seed) for seed, name in enumerate(("foreground", "background"))}
    return random_states() | maps


def networks_of(states):
    return Networks(**{name: Network.of(states[name], *sides) for name, sides in SIDES.items()})


def some_pixels(size, step=5):
    return [(j, i) for i in range(0, size[0], step + 2) for j in range(0, size[1], step)]


@pytest.fixture(scope="module")
def states():
    return random_states()


@pytest.fixture(scope="module", params=[LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def both(request, states):
    """(size, what is baked)."""
    with torch.no_grad():
        return request.param, nla_bake.baked(networks_of(states), request.param, FRAMES)


@pytest.mark.parametrize("frequencies", [0, 1, 3, 10])
@pytest.mark.parametrize("skips", [(), (2,), (1, 3), (2, 4)])
def test_a_network_says_what_the_formulas_say(frequencies, skips):
    state = random_state(3, 2, frequencies, layers=5, skips=skips, gain=1.0, seed=7)
    network = Network.of(state, 3, 2)
    points = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = torch.tensor([slow(state, point, frequencies, skips) for point in points.tolist()])
    assert (network.frequencies, network.width, len(network.weights)) == (frequencies, 16, 5)
    assert torch.allclose(network(points), expected, atol=1e-3 if frequencies == 10 else 1e-5)  # sines of 1600


def test_no_gradient_goes_through_a_skip():
    """Here nothing else tells the points: what comes out depends on them, and its slope says not."""
    state = random_state(3, 2, 1, layers=3, skips=(1,), seed=7)
    state["hidden.0.weight"].zero_()
    points = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    found = Network.of(state, 3, 2)(points)
    found.sum().backward()
    assert found.std(0).min() > 0 and points.grad.abs().max() == 0


def test_maps_are_the_networks(both, states):
    """Within .02 pixels where they bend a little."""
    size, found = both
    for k in range(2):
        dense = found.atlas.maps(range(FRAMES), k)
        for f in range(FRAMES):
            for j, i in some_pixels(size):
                uv, _ = slow_pixel(states, j, i, f, FRAMES, size)
                assert dense[f, i, j].tolist() == pytest.approx(uv[k], abs=0.02 / max(size))


def test_alpha_is_the_networks(both, states):
    size, found = both
    alpha, spread = found.atlas.alpha(range(FRAMES), 0)[:, 0], []
    for f in range(FRAMES):
        for j, i in some_pixels(size):
            _, expected = slow_pixel(states, j, i, f, FRAMES, size)
            spread.append(expected)
            assert alpha[f, i, j].item() == pytest.approx(expected, abs=0.51 / 255)
    assert min(spread) < 0.3 and max(spread) > 0.7


@pytest.mark.parametrize("k", [0, 1])
def test_pictures_are_the_networks(both, states, k):
    _, found = both
    layer = found.atlas.layers[k]
    box = layer.box
    for row in range(0, box.rows, 9):
        for column in range(0, box.columns, 11):
            u = box.left + (column + 0.5) / box.columns * (box.right - box.left)
            v = box.top + (row + 0.5) / box.rows * (box.bottom - box.top)
            place = box.to_texels(torch.tensor([u, v])).tolist()
            assert place == pytest.approx([column, row], abs=1e-3)
            expected = slow_colour(states, (u, v), k)
            assert layer.texture[:, row, column].tolist() == pytest.approx(expected, abs=1e-4)
    assert layer.texture.std() > 0.02


def test_frames_are_the_published_reconstruction(both, states):
    """a c_f + (1 - a) c_b; sampling between texels is what is left."""
    size, found = both
    frames, errors = found.atlas.render(range(FRAMES)), []
    for f in range(FRAMES):
        for j, i in some_pixels(size):
            uv, a = slow_pixel(states, j, i, f, FRAMES, size)
            front, back = (slow_colour(states, uv[k], k) for k in range(2))
            expected = [a * p + (1 - a) * q for p, q in zip(front, back, strict=True)]
            errors.append((frames[f, :, i, j] - torch.tensor(expected)).abs().max().item())
    assert sum(errors) / len(errors) < 0.004 and max(errors) < 0.03


def test_boxes_hold_what_is_seen_and_no_more(both, states):
    size, found = both
    for k, layer in enumerate(found.atlas.layers):
        box, dense, seen = layer.box, found.atlas.maps(range(FRAMES), k), found.atlas.seen(range(FRAMES))[k][:, 0]
        uv = dense[seen > nla_bake.HELD]
        low, high = torch.tensor([box.left, box.top]), torch.tensor([box.right, box.bottom])
        assert (uv >= low - 1e-6).all() and (uv <= high + 1e-6).all()
        texel = (high - low) / torch.tensor([box.columns, box.rows])
        assert ((uv.amin(0) - low) < 4 * texel).all() and ((high - uv.amax(0)) < 4 * texel).all()
        pixel = 0.65 / (max(size) / 2)  # in uv, by the scale of the maps
        assert (texel < pixel).all() and (texel > pixel / 2).all()


def covering(threshold, edge=1000.0):
    """Networks whose foreground is seen where x < threshold alone; edge: how steeply alpha falls there."""
    states = random_states(bend=0.0)
    states["alpha"] = random_state(3, 1, 0, layers=1)
    states["alpha"]["hidden.0.weight"][:] = torch.tensor([-edge, 0.0, 0.0])
    states["alpha"]["hidden.0.bias"][:] = edge * threshold
    return networks_of(states)


@torch.no_grad()
def test_what_no_frame_shows_is_outside_or_not_observed():
    found = nla_bake.baked(covering(0.0), LANDSCAPE, FRAMES).atlas
    front, back = found.layers
    dense = found.maps(range(FRAMES), 0)
    assert front.box.right < dense[..., 0].max() - 0.2  # half of the map is not of the foreground
    assert back.box.left > found.maps(range(FRAMES), 1)[..., 0].min() + 0.2
    for layer in (front, back):  # time leaves corners between the frames' borders
        assert 0.6 < layer.observed.float().mean() < 0.99
    uv, behind = nla_bake.texels(back.box)[back.observed], found.maps(range(FRAMES), 1)[:, :, 32:].flatten(0, 2)
    assert torch.cdist(uv, behind).amin(1).max() < 2.5 * (back.box.right - back.box.left) / back.box.columns


@torch.no_grad()
def test_pictures_reach_as_far_as_a_soft_alpha():
    hard, soft = (nla_bake.baked(covering(0.0, edge), LANDSCAPE, 1).atlas.layers for edge in (1000.0, 4.0))
    assert soft[0].box.right > hard[0].box.right + 0.2 and soft[1].box.left < hard[1].box.left - 0.2


@torch.no_grad()
def test_a_foreground_that_is_seen_nowhere_is_no_error():
    found = nla_bake.baked(covering(-5.0), LANDSCAPE, FRAMES)
    front = found.atlas.layers[0]
    assert (front.box.left, front.box.bottom) == (-1, 1) and not front.observed.any()
    assert math.isnan(found.residuals[0].mean) and found.residuals[1].worst < 0.1
    assert all(gate.fine for gate in found.gates())


@torch.no_grad()
def test_the_residual_is_the_true_one():
    """Of rough maps, against the formulas at every pixel that shows the layer most."""
    states, size, n = rough_states(), (12, 16), 2
    found = nla_bake.baked(networks_of(states), size, n)
    for k in range(2):
        maps, off = found.atlas.layers[k].maps, []
        for f in range(n):
            dense, scale = maps[[f]].dense(size)[0], maps.affine[f, :, :2].double().det().abs().sqrt().item()
            for i in range(size[0]):
                for j in range(size[1]):
                    uv, a = slow_pixel(states, j, i, f, n, size, mapping=3)
                    if (a, 1 - a)[k] > 0.5:
                        off.append(math.dist(dense[i, j].tolist(), uv[k]) / scale * max(size) / 2)
        residual = found.residuals[k]
        assert residual.mean == pytest.approx(sum(off) / len(off), rel=1e-3) and residual.mean > 0.1
        assert residual.worst == pytest.approx(max(off), rel=1e-3)


@torch.no_grad()
def test_no_other_splines_are_closer():
    """The closed form is the least squares of an affine map and splines together."""
    size = (24, 32)
    (uv, _), _ = networks_of(rough_states()).frame(size, 0, FRAMES, lambda done: None)
    maps = nla_bake._Sheet(size)._fitted(uv.double())
    rows, columns = (cells + 3 for cells in nla_bake.cells_for(size))
    assert maps.offsets.shape == (1, 2, rows, columns)
    count = rows * columns
    units = Maps(torch.zeros(count + 3, 2, 3).double(), torch.zeros(count + 3, 2, rows, columns).double())
    units.offsets[3:, 0] = torch.eye(count).view(-1, rows, columns)
    units.affine[:3, 0] = torch.eye(3)
    basis, wanted = units.dense(size)[..., 0].flatten(1).T, uv.flatten(0, 1).double()
    best = basis @ torch.linalg.lstsq(basis, wanted, driver="gelsd").solution
    assert (best - wanted).norm() > 0.1
    assert torch.allclose(maps.dense(size)[0].flatten(0, 1).double(), best, atol=1e-5)
    plane = torch.linalg.lstsq(basis[:, :3], wanted).solution.T
    assert torch.allclose(maps.affine[0].double(), plane, atol=1e-5)  # its scale is that of the residual


@pytest.mark.parametrize("size", [(432, 768), (768, 432), (40, 64), (32, 33)])
def test_cells_are_square_and_not_too_small(size):
    rows, columns = nla_bake.cells_for(size)
    sides = size[0] / rows, size[1] / columns
    assert min(sides) >= 2 and max(sides) / min(sides) < 1.5
    assert max(rows, columns) <= nla_bake.CELLS


@torch.no_grad()
def test_points_are_taken_in_chunks(states, monkeypatch):
    networks, calls = networks_of(states), []
    whole = nla_bake.baked(networks, (32, 32), 2)
    monkeypatch.setattr(nla, "CHUNK", 100)
    apart = nla_bake.baked(networks, (32, 32), 2, calls.append)
    assert torch.allclose(whole.atlas.render([0, 1]), apart.atlas.render([0, 1]), atol=1e-3)
    assert calls.count(1) == 4 and calls.count(0) > 2 * 3 * 11

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nla_bake.baked(networks, (32, 32), 2, stop)
