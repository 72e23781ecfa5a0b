"""Losses of an atlas fit against their equations, pixel by pixel."""

import math

import pytest
import torch

from ei2_modules.atlas import losses
from ei2_modules.atlas.adam import BETAS, Rows


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_gradients(c, i):
    m, _, h, w = c.shape
    e = c - i
    across = [
        (e[n, :, y, x + 1] - e[n, :, y, x]).square().sum() for n in range(m) for y in range(h) for x in range(w - 1)
    ]
    down = [
        (e[n, :, y + 1, x] - e[n, :, y, x]).square().sum() for n in range(m) for y in range(h - 1) for x in range(w)
    ]
    return sum(across) / len(across) + sum(down) / len(down)


def slow_rigidity(jacobian):
    values = []
    for j in jacobian.reshape(-1, 2, 2):
        gram = j.T @ j + losses.RIDGE * torch.eye(2)
        values.append(gram.norm() + torch.linalg.inv(gram).norm())
    return sum(values) / len(values)


def test_pictures():
    c, i = rand(2, 3, 4, 5), rand(2, 3, 4, 5, seed=1)
    slow = [(c - i)[n, :, y, x].square().sum() for n in range(2) for y in range(4) for x in range(5)]
    assert losses.reconstruction(c, i).item() == pytest.approx(float(sum(slow) / 40))
    assert losses.gradients(c, i).item() == pytest.approx(slow_gradients(c, i).item())
    assert losses.gradients(c, c + 0.3).item() == pytest.approx(0, abs=1e-20)  # an even error has no gradient


def test_rigidity():
    jacobian = rand(3, 4, 2, 2) + torch.eye(2)
    assert losses.rigidity(jacobian).item() == pytest.approx(slow_rigidity(jacobian).item())


@pytest.mark.parametrize(
    ("jacobian", "least"),
    [
        ([[1, 0], [0, 1]], True),
        ([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]], True),
        ([[1.2, 0], [0, 1.2]], False),
        ([[1, 0.4], [0, 1]], False),
        ([[1, 0], [0, 0]], False),  # folded flat: large, and finite
    ],
)
def test_rigidity_is_least_for_turns(jacobian, least):
    value = losses.rigidity(torch.tensor([jacobian], dtype=torch.float64)).item()
    assert math.isfinite(value)
    assert (value < 2 * 2**0.5 + 1e-3) is least


def test_flow_is_of_what_agrees():
    gap, weight, agrees = rand(2, 4, 2), rand(2, 4, seed=1), (rand(2, 4, seed=2) > 0.4).double()
    length = (gap.square().sum(-1) + losses.EPS**2).sqrt()
    slow = [weight[n, p] * length[n, p] for n in range(2) for p in range(4) if agrees[n, p]]
    assert losses.flow(gap, weight, agrees).item() == pytest.approx(float(sum(slow) / len(slow)))
    here, there = rand(2, 4, seed=3), rand(2, 4, seed=4)
    slow = [abs(a - b) for a, b, ok in zip(here.flatten(), there.flatten(), agrees.flatten(), strict=True) if ok]
    assert losses.alpha_flow(here, there, agrees).item() == pytest.approx(float(sum(slow) / len(slow)))


def test_no_flow_that_agrees_is_no_nan():
    """The published code takes the mean of nothing here, and training dies without a word."""
    none = torch.zeros(2, 4)
    assert losses.flow(rand(2, 4, 2), rand(2, 4), none).item() == 0
    assert losses.alpha_flow(rand(2, 4), rand(2, 4), none).item() == 0


def test_a_layer_is_not_hidden_to_please_the_flow():
    weight = torch.ones(1, 3, requires_grad=True)
    gap = torch.ones(1, 3, 2, requires_grad=True)
    losses.flow(gap, weight, torch.ones(1, 3)).backward()
    assert weight.grad is None and gap.grad is not None


def test_motion_that_is_even_costs_nothing():
    even = torch.arange(5.0)[:, None] * rand(1, 6).float()
    assert losses.temporal(even).item() == pytest.approx(0, abs=1e-10)
    assert losses.temporal(even[:2]).item() == 0
    v = rand(4, 2, 3)
    slow = [(v[t - 1] - 2 * v[t] + v[t + 1]).square().mean() for t in (1, 2)]
    assert losses.temporal(v).item() == pytest.approx(float(sum(slow) / 2))


def test_trimap_speaks_where_it_is_certain():
    logit = torch.tensor([-2.0, 0.5, 3.0, 1.0]).view(1, 1, 1, 4)
    inside, outside = torch.tensor([1.0, 0, 0, 0]).view(1, 1, 1, 4), torch.tensor([0, 0, 1.0, 0]).view(1, 1, 1, 4)
    alpha = torch.sigmoid(logit).flatten()
    assert losses.trimap(logit, inside, outside).item() == pytest.approx(
        float(-alpha[0].log() - (1 - alpha[2]).log()) / 4
    )
    assert losses.trimap(logit, 0 * inside, 0 * outside).item() == 0


def test_alpha_texture_and_light():
    alpha = rand(2, 1, 3, 4)
    across = (
        sum((alpha[n, 0, y, x + 1] - alpha[n, 0, y, x]).abs() for n in range(2) for y in range(3) for x in range(3))
        / 18
    )
    down = (
        sum((alpha[n, 0, y + 1, x] - alpha[n, 0, y, x]).abs() for n in range(2) for y in range(2) for x in range(4))
        / 16
    )
    assert losses.variation(alpha).item() == pytest.approx(float(across + down))
    assert losses.area(alpha).item() == pytest.approx(alpha.mean().item())
    texture, start, weight = rand(3, 4, 5), rand(3, 4, 5, seed=1), rand(4, 5, seed=2)
    slow = sum(weight[y, x] * (texture - start)[:, y, x].square().sum() for y in range(4) for x in range(5)) / 7
    assert losses.anchor(texture, start, weight, 7).item() == pytest.approx(float(slow))
    assert losses.gains(alpha).item() == pytest.approx(alpha.square().mean().item())


def slow_adam(value, gradient, rate, steps):
    """Algorithm 1 of Kingma and Ba, number by number."""
    m = v = 0.0
    for t in range(1, steps + 1):
        g = gradient(value)
        m, v = BETAS[0] * m + (1 - BETAS[0]) * g, BETAS[1] * v + (1 - BETAS[1]) * g * g
        value -= rate * (m / (1 - BETAS[0] ** t)) / (math.sqrt(v / (1 - BETAS[1] ** t)) + 1e-8)
    return value


def test_adam_is_that_of_the_paper():
    start, target = rand(4, 3), rand(4, 3, seed=1)
    rows, every = Rows(start.clone(), 0.05), slice(0, 4)
    for _ in range(20):
        leaf = rows.leaf(every)
        rows.step(every, torch.autograd.grad((leaf - target).square().sum(), leaf)[0], 1.0)
    for i, (value, wanted) in enumerate(zip(start.flatten().tolist(), target.flatten().tolist(), strict=True)):
        assert rows.value.flatten()[i].item() == pytest.approx(
            slow_adam(value, lambda x, to=wanted: 2 * (x - to), 0.05, 20)
        )


def test_adam_leaves_other_rows_alone():
    rows = Rows(rand(5, 2), 0.1)
    before = rows.value.clone()
    for _ in range(3):
        rows.step(slice(1, 3), torch.ones(2, 2, dtype=torch.float64), 1.0)
    assert torch.equal(rows.value[[0, 3, 4]], before[[0, 3, 4]]) and not torch.equal(rows.value[1:3], before[1:3])
    rows.step(slice(3, 4), torch.full((1, 2), 5.0, dtype=torch.float64), 0.5)  # its first step, however late
    assert torch.allclose(before[3] - rows.value[3], torch.full((2,), 0.05, dtype=torch.float64))
