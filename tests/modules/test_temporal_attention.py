"""STAM against a slow reading of eq. 6 to 9, its three starts, folding, and what theory says of its moments."""

import pytest
import torch

from ei2_modules.attention.centering import instance_centering, instance_norm, layer_norm, spectral_norm
from ei2_modules.attention.temporal import (
    TEMPORAL_MODULES,
    TemporalAttention,
    add_spectral_norm,
    folded_state,
    initialise,
    power_iteration,
)

DIM, HEADS = 16, 4
INITS = ["random", "zero-query", "clamp", "Tune-A-Video"]
CLAMPED = ("clamp", "Tune-A-Video")


def module(kind="STAM", init="random", spectral=False, seed=0):
    m = TemporalAttention(DIM, HEADS, kind)
    initialise(m, init, torch.Generator().manual_seed(seed))
    if spectral:
        add_spectral_norm(m, init)
    return m


def clip(clips=2, frames=5, tokens=6, seed=0):
    return torch.randn(clips * frames, tokens, DIM, generator=torch.Generator().manual_seed(seed))


def slow_norm(kind, z):
    """z: (n, d), one sequence."""
    if kind.startswith(("STAM", "IC")):
        return z - z.mean(0)
    axis = 0 if kind.startswith("instance") else 1
    return (z - z.mean(axis, keepdim=True)) / (z.var(axis, keepdim=True, correction=0) + 1e-5).sqrt()


def slow_module(m, kind, x, frames, w_v, w_l):
    """Eq. 6 to 9, place by place and head by head."""
    out = x.clone()
    for first in range(0, len(x), frames):
        for place in range(x.shape[1]):
            z = x[first : first + frames, place]
            c = slow_norm(kind, z)
            c = m.affine(c)
            q, k, v = c @ m.to_q.weight.T, c @ m.to_k.weight.T, c @ w_v.T
            heads = []
            for s in range(0, DIM, DIM // HEADS):
                h = slice(s, s + DIM // HEADS)
                heads.append(torch.softmax(q[:, h] @ k[:, h].T / (DIM // HEADS) ** 0.5, -1) @ v[:, h])
            out[first : first + frames, place] = z + torch.cat(heads, -1) @ w_l.T + m.to_out.bias
    return out


@torch.no_grad()
def shake(m):
    """Trained-looking weights, so that zero starts do not hide anything."""
    for p in m.parameters():
        p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.2)
    return m


@pytest.mark.parametrize("kind", [k for k in TEMPORAL_MODULES if k != "none"])
def test_equals_the_slow_reference(kind):
    m = shake(module(kind))
    with torch.no_grad():
        expected = slow_module(m, kind, clip(), 5, m.to_v.weight, m.to_out.weight)
        torch.testing.assert_close(m(clip(), 5), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("init", INITS)
def test_spectral_norm_divides_value_and_output_only(init):
    m = shake(module(init=init))
    w_v, w_l = m.to_v.weight.detach().clone(), m.to_out.weight.detach().clone()
    divide = (lambda w: w / spectral_norm(w).clamp(min=1)) if init in CLAMPED else (lambda w: w / spectral_norm(w))
    add_spectral_norm(m, init)
    with torch.no_grad():
        expected = slow_module(m, "STAM", clip(), 5, divide(w_v), divide(w_l))
        torch.testing.assert_close(m(clip(), 5), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("init", INITS)
def test_normalised_matrices_have_norm_one(init):
    state = folded_state(shake(module(init=init, spectral=True)), init)
    for name in ("to_v.weight", "to_out.weight"):
        sigma = float(spectral_norm(state[name]))
        assert sigma == pytest.approx(1, abs=1e-5) if init not in CLAMPED else sigma <= 1 + 1e-5
    assert float(spectral_norm(state["to_q.weight"])) != pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(("init", "tolerance"), [("zero-query", 1e-6), ("clamp", 0.0)])
def test_identity_at_the_start(init, tolerance):
    with torch.no_grad():
        out = module(init=init, spectral=True)(clip(), 5)
    torch.testing.assert_close(out, clip(), rtol=0, atol=tolerance)


def test_random_start_is_near_the_identity_but_not_it():
    with torch.no_grad():
        change = module(spectral=True)(clip() * 0.1, 5) - clip() * 0.1
    assert 0 < change.std() / 0.1 < 0.05


@pytest.mark.parametrize("kind", [k for k in TEMPORAL_MODULES if k not in ("STAM", "none")])
@pytest.mark.parametrize("init", ["zero-query", "random", "clamp"])
def test_others_start_as_the_identity(kind, init):
    with torch.no_grad():
        assert torch.equal(module(kind, init)(clip(), 5), clip())


@pytest.mark.parametrize("kind", [k for k in TEMPORAL_MODULES if k != "none"])
def test_the_published_start_of_tune_a_video_adds_its_random_bias(kind):
    """Its code zeroes the output's weight and leaves the bias as nn.Linear draws it: within 1/sqrt(d), all over."""
    started, without = module(kind, "Tune-A-Video"), module(kind, "clamp")
    bias, bound = started.to_out.bias.detach(), started.to_out.in_features**-0.5
    assert 0.5 * bound < bias.abs().max() <= bound and len(set(bias.tolist())) == len(bias)
    for name, parameter in without.named_parameters():
        assert name == "to_out.bias" or torch.equal(parameter, started.get_parameter(name)), name
    with torch.no_grad():
        torch.testing.assert_close(started(clip(), 5), clip() + bias, rtol=0, atol=1e-6)


@pytest.mark.parametrize("init", INITS)
def test_every_start_can_learn(init):
    """A first gradient reaches something, and a second step changes the output."""
    m = module(init=init, spectral=True)
    optimiser = torch.optim.SGD(m.parameters(), lr=0.5)
    target = clip(seed=9)
    for _ in range(4):
        optimiser.zero_grad()
        loss = (m(clip(), 5) - target).square().mean()
        loss.backward()
        optimiser.step()
        power_iteration(m)
    with torch.no_grad():
        assert (m(clip(), 5) - target).square().mean() < loss


ONE_FRAME = clip(clips=3, frames=1)


@pytest.mark.parametrize("init", INITS)
def test_one_frame_is_the_identity_plus_bias(init):
    m = shake(module(init=init, spectral=True))
    with torch.no_grad():
        torch.testing.assert_close(m(ONE_FRAME, 1), ONE_FRAME + m.to_out.bias)


def test_equal_frames_are_the_identity_plus_bias():
    m = shake(module(spectral=True))
    still = clip(1, 1).expand(5, -1, -1)
    with torch.no_grad():
        torch.testing.assert_close(m(still, 5), still + m.to_out.bias, rtol=0, atol=1e-6)


def test_mean_shift_is_the_bias_under_uniform_attention():
    m = shake(module(init="zero-query", spectral=True))
    with torch.no_grad():
        m.to_q.weight.zero_()
        change = (m(clip(), 5) - clip()).reshape(2, 5, 6, DIM).mean(1)
        torch.testing.assert_close(change, m.to_out.bias.expand_as(change), rtol=0, atol=1e-6)


def test_clips_and_places_never_mix():
    m = shake(module(spectral=True))
    x = clip()
    y = x.clone()
    y[5:] += 1
    y[:, 0] -= torch.randn(10, DIM)
    with torch.no_grad():
        assert torch.equal(m(x, 5)[:5, 1:], m(y, 5)[:5, 1:])


def test_exact_moments_for_gaussian_frames(monkeypatch):
    """mean' = mean + b and cov' = S + (M_ii - 1/n)(SA + A'S) + (w - 1/n) A'SA, one head, fixed attention M."""
    torch.manual_seed(0)
    n, d, samples = 4, 3, 400_000
    root, mean, attention = torch.randn(d, d), torch.randn(d), torch.softmax(torch.randn(n, n), -1)
    m = TemporalAttention(d, 1, "STAM")
    initialise(m, "random", torch.Generator().manual_seed(1))
    add_spectral_norm(m, "random")
    monkeypatch.setattr("ei2_modules.attention.temporal.scaled_dot_product", lambda q, k, v, heads: attention @ v)
    with torch.no_grad():
        m.to_out.bias.fill_(0.5)
        cov, a = root @ root.T, m.to_v.weight.T @ m.to_out.weight.T
        out = m((mean + torch.randn(samples, n, d) @ root.T).transpose(0, 1), n)  # a sample is a place of the map
    i = 1
    own, weight = attention[i, i], attention[i].square().sum()
    expected = cov + (own - 1 / n) * (cov @ a + a.T @ cov) + (weight - 1 / n) * a.T @ cov @ a
    torch.testing.assert_close(out[i].mean(0), mean + 0.5, rtol=0, atol=0.02)
    torch.testing.assert_close(torch.cov(out[i].T), expected, rtol=0, atol=0.02 * float(expected.abs().max()))
    assert (expected - cov).abs().max() > 0.1 * expected.abs().max(), "M and A change something"
    assert spectral_norm(a) <= 1 + 1e-5


@pytest.mark.parametrize("init", INITS)
def test_gradient_is_the_slow_references(init):
    """Through both spectral norms, with the exact norm in the reference."""
    m = shake(module(init=init))
    w_v, w_l = (w.detach().clone().requires_grad_() for w in (m.to_v.weight, m.to_out.weight))
    sigma_v, sigma_l = (torch.linalg.matrix_norm(w, ord=2) for w in (w_v, w_l))
    if init in CLAMPED:
        sigma_v, sigma_l = sigma_v.clamp(min=1), sigma_l.clamp(min=1)
    expected = slow_module(m, "STAM", clip(), 5, w_v / sigma_v, w_l / sigma_l)
    expected = torch.autograd.grad((expected * clip(seed=9)).sum(), (w_v, w_l))
    add_spectral_norm(m, init)
    originals = [linear.parametrizations.weight.original for linear in (m.to_v, m.to_out)]
    ours = torch.autograd.grad((m(clip(), 5) * clip(seed=9)).sum(), originals)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("init", INITS)
def test_folding_changes_nothing_and_is_idempotent(init):
    m = shake(module(init=init, spectral=True))
    for _ in range(300):
        power_iteration(m)
    folded = TemporalAttention(DIM, HEADS, "STAM")
    folded.load_state_dict(folded_state(m, init))
    with torch.no_grad():
        torch.testing.assert_close(folded(clip(), 5), m(clip(), 5), rtol=0, atol=1e-5)
    again = folded_state(folded, init)
    for name, tensor in folded_state(m, init).items():
        torch.testing.assert_close(again[name], tensor, rtol=0, atol=1e-6)


def test_half_precision_input_keeps_its_type():
    m = shake(module(spectral=True))
    with torch.no_grad():
        half = m(clip().bfloat16(), 5)
        assert half.dtype == torch.bfloat16
        torch.testing.assert_close(half.float(), m(clip(), 5), rtol=0, atol=0.1)


@pytest.mark.parametrize(
    ("norm", "axis", "variance"), [(instance_centering, 1, None), (instance_norm, 1, 1.0), (layer_norm, 2, 1.0)]
)
def test_norms_do_what_they_say(norm, axis, variance):
    z = torch.randn(3, 6, DIM, generator=torch.Generator().manual_seed(0)) * 3 + 2
    out = norm(z)
    torch.testing.assert_close(out.mean(axis), torch.zeros_like(out.mean(axis)), rtol=0, atol=1e-5)
    expected = z.var(axis, correction=0) if variance is None else torch.ones_like(out.mean(axis))
    torch.testing.assert_close(out.var(axis, correction=0), expected, rtol=1e-3, atol=1e-3)
