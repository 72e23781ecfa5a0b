"""The reference of `bench atlas`: its losses against the published formulas, pixel by pixel, and that it learns."""

from argparse import Namespace
from dataclasses import replace
from itertools import count

import pytest
import torch

from benchmarks.atlas import __main__ as bench
from benchmarks.atlas import nla_losses, nla_reference
from benchmarks.atlas.measures import map_errors, psnr
from benchmarks.atlas.nla_losses import UNTIL, WEIGHTS, Drawn, Pixels
from benchmarks.atlas.nla_reference import NeuralMaps, Options, Training
from benchmarks.atlas.scenes import MOTIONS, Scene, boxes
from ei2_modules.atlas.nla import SIDES, Network, Networks, places
from ei2_modules.motion.flow import Flow

from ..nla_checkpoint import random_state, random_states, slow_colour, slow_pixel

FRAMES, LANDSCAPE, PORTRAIT = 3, (5, 8), (8, 5)


def random_clip(size):
    """(frames, mask, flow) of nothing that is seen: every number counts."""
    generator = torch.Generator().manual_seed(5)
    frames, mask = (torch.rand(FRAMES, c, *size, generator=generator) for c in (3, 1))
    there, back = (2 * torch.randn(FRAMES - 1, 2, *size, generator=generator) for _ in range(2))
    agrees = (torch.rand(FRAMES - 1, 1, *size, generator=generator) > 0.4 for _ in range(2))
    return frames, mask.round(), Flow(there, back, *agrees)


def slow_point(states, j, i, f, size):
    """uv of both layers, alpha, colour of the foreground, colour of all."""
    uv, alpha = slow_pixel(states, j, i, f, FRAMES, size)
    front, back = (slow_colour(states, uv[k], k) for k in range(2))
    return uv, alpha, front, [alpha * p + (1 - alpha) * q for p, q in zip(front, back, strict=True)]


def apart(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def slow_rigidity(states, j, i, f, size, layer, distance):
    own, left, above = (
        slow_pixel(states, *at, f, FRAMES, size)[0][layer] for at in ((j, i), (j - distance, i), (j, i - distance))
    )
    columns = [
        [(p - q) * max(size) / 2 / 0.8 / distance for p, q in zip(own, there, strict=True)] for there in (left, above)
    ]
    jacobian = torch.tensor(columns, dtype=torch.float64).T
    gram = jacobian.T @ jacobian
    return (gram.norm() + torch.linalg.inv(gram + 0.001 * torch.eye(2)).norm()).item()


def slow_colours(states, clip, j, i, f, size):
    """Reconstruction, gradient, sparsity and bootstrap of a pixel."""
    (frames, mask, _), (_, alpha, front, drawn) = clip, slow_point(states, j, i, f, size)
    colour, gradient = frames[f, :, i, j].tolist(), 0.0
    for b, a in ((j + 1, i), (j, i + 1)):
        inside = b < size[1] and a < size[0]
        more = (frames[f, :, a, b] - frames[f, :, i, j]).tolist() if inside else [0, 0, 0]
        there = slow_point(states, b, a, f, size)[3]
        gradient += apart([p - q for p, q in zip(there, drawn, strict=True)], more)
    seen = alpha if mask[f, 0, i, j] else 1 - alpha
    return apart(drawn, colour), gradient, sum(((1 - alpha) * c) ** 2 for c in front), -torch.tensor(seen).log().item()


def slow_flow(states, clip, j, i, f, size, way):
    """(flow, alpha flow) of a pixel towards the next frame (0) or the one before (1); None where it does not agree."""
    flow, g = clip[2], f - way
    if not 0 <= g < FRAMES - 1 or not (flow.forward_agrees, flow.backward_agrees)[way][g, 0, i, j]:
        return None
    right, down = (flow.forward, flow.backward)[way][g, :, i, j].tolist()
    here, a = slow_pixel(states, j, i, f, FRAMES, size)
    there, b = slow_pixel(states, j + right, i + down, f + (1, -1)[way], FRAMES, size)
    lengths = [apart(p, q) ** 0.5 * max(size) / (2 * 0.8) for p, q in zip(here, there, strict=True)]
    return a * lengths[0] + (1 - a) * lengths[1], abs(a - b)


def slow_terms(states, clip, size, picked):
    found = dict.fromkeys(WEIGHTS, 0.0)
    for j, i, f in picked:
        values = slow_colours(states, clip, j, i, f, size)
        for name, value in zip(("reconstruction", "gradient", "sparsity", "bootstrap"), values, strict=True):
            found[name] += value / len(picked)
        for layer, name in enumerate(("far foreground", "far background")):
            found["rigidity"] += slow_rigidity(states, j, i, f, size, layer, 1) / len(picked)
            found[name] += slow_rigidity(states, j, i, f, size, layer, 100) / len(picked)
    for way in range(2):
        agree = [v for p in picked if (v := slow_flow(states, clip, *p, size, way)) is not None]
        for name, values in zip(("flow", "alpha flow"), zip(*agree, strict=True), strict=True):
            found[name] += 0.5 * sum(values) / len(values)
    return found


def networks_of(states):
    return Networks(**{name: Network.of(states[name], *sides) for name, sides in SIDES.items()})


@pytest.mark.parametrize("size", [LANDSCAPE, PORTRAIT], ids=["landscape", "portrait"])
def test_every_loss_is_the_published_formula(size):
    """Among them pixels of the last row and column, and of the first and the last frame."""
    (h, w), clip = size, random_clip(size)
    states = random_states(gain=0.8) | {"alpha": random_state(3, 1, 5, layers=5, gain=1.2, seed=3)}
    which = torch.cat([torch.arange(0, FRAMES * h * w, 7), torch.tensor([FRAMES * h * w - 1, w - 1])])
    picked = [(k % w, k // w % h, k // (h * w)) for k in which.tolist()]
    found = nla_losses.terms(networks_of(states), Pixels.of(*clip)[which], max(size) / 2, 0)
    expected = slow_terms(states, clip, size, picked)
    assert {name: term.item() for name, term in found.items()} == pytest.approx(expected, rel=2e-3)
    assert min(expected.values()) > 1e-3


FAR = {"far foreground", "far background"}
ENDS = [(0, set()), (5_000, set()), (5_001, FAR), (10_000, FAR), (10_001, FAR | {"bootstrap"})]


@pytest.mark.parametrize(("iteration", "gone"), ENDS)
def test_some_losses_end(iteration, gone):
    clip, networks = random_clip(LANDSCAPE), networks_of(random_states())
    found = nla_losses.terms(networks, Pixels.of(*clip), 4, iteration)
    assert set(WEIGHTS) - set(found) == gone and gone <= set(UNTIL)


def test_the_weights_are_the_published_ones():
    zeros, one = dict.fromkeys(WEIGHTS, torch.zeros(())), torch.ones(())
    weights = {name: nla_losses.total(zeros | {name: one}).item() for name in WEIGHTS}
    assert weights == {
        "reconstruction": 5000, "gradient": 1000, "rigidity": 1, "flow": 5, "alpha flow": 49, "sparsity": 1000,
        "bootstrap": 2000, "far foreground": 5, "far background": 50,
    }  # fmt: skip


@pytest.mark.parametrize("distance", [1, 100])
@pytest.mark.parametrize(("scale", "least"), [(1, 2 * 2**0.5), (2, 4.25 * 2**0.5), (0.5, 4.25 * 2**0.5)])
def test_rigidity_of_known_maps(scale, least, distance):
    """G = J^T J is s^2 times the identity: (s^2 + 1 / s^2) times sqrt(2)."""
    turn = 0.8 * scale * torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    place = torch.rand(9, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = nla_losses.rigidity(lambda p: p[:, :2] @ turn.T, place, place[:, :2] @ turn.T, distance, 64)
    assert found.item() == pytest.approx(least, rel=4e-3)


def test_a_flow_that_agrees_nowhere_counts_nothing():
    pixels, networks = Pixels.of(*random_clip(LANDSCAPE)), nla_reference.made(8, 0)
    pixels = replace(pixels, followed=torch.zeros_like(pixels.followed))
    found = nla_losses.terms(networks, pixels, 4, 0)
    assert (found["flow"].item(), found["alpha flow"].item()) == (0, 0)
    nla_losses.total(found).backward()
    assert all(part.grad.isfinite().all() for part in nla_reference.parameters(networks, *SIDES))


def test_the_networks_are_the_published_ones():
    networks, state = nla_reference.made(256, 0), torch.random.get_rng_state()
    counted = {name: sum(part.numel() for part in nla_reference.parameters(networks, name)) for name in SIDES}
    assert counted == {"foreground": 264_706, "background": 133_122, "atlas": 416_379, "alpha": 402_945}
    for name, sides in SIDES.items():
        network = getattr(networks, name)
        network._check(sides[1])
        wide = [k for k, weight in enumerate(network.weights) if k and weight.shape[1] != 256]
        assert (network.frequencies, wide) == {"atlas": (10, [4, 7]), "alpha": (5, [])}.get(name, (0, []))
    same, other = (nla_reference.made(256, seed).atlas.weights[0] for seed in (0, 1))
    assert torch.equal(same, networks.atlas.weights[0]) and not torch.equal(other, same)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.fixture(scope="module")
def scene():
    return Scene(MOTIONS["slide"], 4, (24, 40))


@pytest.fixture
def training(scene):
    frames, alphas = scene.render()
    return Training(frames, boxes(alphas), scene.flow(alphas), Options(batch=300, rate=5e-3, passes=10, width=32))


def test_it_learns(scene, training):
    """The pretraining brings both mappings to 0.8 of x and y; the steps lower the loss and raise the PSNR."""
    frames, _ = scene.render()
    before = [training.pretrain() for _ in range(40)]
    assert training.ready and before[-1] < 0.2 * before[0]
    uv = training.networks.foreground(training.pixels.place)
    assert (uv - 0.8 * training.pixels.place[:, :2]).norm(dim=1).mean() < 0.15
    drawn = [psnr(nla_reference.rendered(training)[0], frames)]
    losses = []
    for _ in range(2):
        losses += [training.step() for _ in range(40)]
        drawn.append(psnr(nla_reference.rendered(training)[0], frames))
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5]) and sum(losses[-5:]) < sum(losses[35:40])
    assert drawn[0] + 4 < drawn[1] < drawn[2] - 0.3


def test_it_draws_what_its_losses_see(training):
    frames, alpha = nla_reference.rendered(training)
    for t in range(len(frames)):
        drawn = Drawn.at(training.networks, places(training.size, t, len(frames)))
        assert torch.allclose(frames[t].permute(1, 2, 0).flatten(0, 1), drawn.colour, atol=1e-5)
        assert torch.allclose(alpha[t].flatten(), drawn.alpha[:, 0], atol=1e-6)


@pytest.mark.parametrize(("passes", "pretrained", "steps"), [(100, 24, 73), (2, 8, 90)])
def test_the_seconds_hold_flow_pretraining_and_training(scene, passes, pretrained, steps):
    """By a clock that goes on by one each time that it is read: 100 in all, a quarter of what is left pretraining."""
    frames, alphas = scene.render()
    options = Options(batch=2, passes=passes, width=4)
    training, took = nla_reference.trained(frames, boxes(alphas), 100, options, now=count().__next__)
    assert (training.pretrained, training.iteration, took) == (pretrained, steps, 101)


@pytest.mark.parametrize("off", [0.0, 0.5])
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("size", [(36, 64), (64, 36)])
def test_errors_of_known_maps(size, layer, off):
    """A network that says, sheared, what the scene does; in every second frame it is so many pixels off."""
    scene, shear = Scene(MOTIONS["bend"], 4, size), torch.tensor([[0.8, 0.0], [0.6, 0.7]])
    _, alphas = scene.render()
    corner = torch.tensor([(size[1] - 1) / max(size) - 1, (size[0] - 1) / max(size) - 1])
    shift = torch.tensor([0.6, 0.8]) * off / (max(size) / 2)

    def known(place):
        t = round((place[0, 2].item() + 1) * scene.frames / 2)
        return scene.to_layer(t, place[:, :2] - corner + t % 2 * shift, layer).float() @ shear

    near, far = map_errors(scene, alphas, NeuralMaps(known, scene.frames), layer)
    assert len(near) > 100 and len(far) > 100
    assert near.mean() == pytest.approx(off, rel=0.08, abs=1e-3) and near.max() < 1.3 * off + 1e-2
    assert 0.2 * off <= far.mean() <= off + 1e-3


def test_a_map_that_says_the_same_everywhere_is_far_off(scene):
    _, alphas = scene.render()
    constant = NeuralMaps(lambda place: 0 * place[:, :2] + 0.1 * place[:, 2:], scene.frames)
    assert map_errors(scene, alphas, constant, 0)[0].min() > 100


@pytest.mark.parametrize(("text", "seconds"), [("1x", 20), ("2.5x", 50), ("600", 600)])
def test_seconds_may_be_so_many_times_ours(text, seconds):
    assert bench.span(text, 20) == seconds


def test_rows_stand_side_by_side():
    values = Namespace(frames=4, size=[40, 24], seconds=["0", "0.01x"], preset="preview", batch=4, rate=1e-3)
    ours, *others = bench.beside(bench.row("slide", 0, values), values)
    assert [row["by"] for row in (ours, *others)] == ["ours", "NLA", "NLA"]
    for row in others:
        assert set(row) == set(ours) and row["steps"].endswith(" + 0")
        assert row["ours above"] == ours["dB"] - row["dB"] > 10
        assert {name for name, value in row.items() if value is None} == {"IoU start", "drift"}
