"""Spectral norms: exact, power-iterated, of zero matrices, and their gradient."""

import pytest
import torch

from ei2_modules.attention.centering import SpectralNorm, spectral_norm


def matrix(d, seed=0):
    return torch.randn(d, d, generator=torch.Generator().manual_seed(seed)) / d**0.5


@pytest.mark.parametrize("d", [4, 64, 320])
def test_exact_at_creation(d):
    assert float(spectral_norm(SpectralNorm(matrix(d), clamp=False)(matrix(d)))) == pytest.approx(1, abs=1e-5)


def test_power_iteration_follows_a_moving_weight():
    w = matrix(32)
    norm = SpectralNorm(w, clamp=False)
    for step in range(60):
        w = w + 0.01 * matrix(32, seed=100 + step)
        norm.power_iteration(w)
    for _ in range(300):
        norm.power_iteration(w)
    assert float(spectral_norm(norm(w))) == pytest.approx(1, abs=1e-4)


def test_a_stale_norm_is_seen():
    """Without iterations the norm of a changed weight is wrong: the test above can fail."""
    norm = SpectralNorm(matrix(32), clamp=False)
    assert abs(float(spectral_norm(norm(matrix(32, seed=1)))) - 1) > 0.05


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 0.0), (0.1, 0.1), (3.0, 1.0)])
def test_clamp_only_caps(scale, expected):
    w = matrix(32)
    w = scale * w / spectral_norm(w)
    assert float(spectral_norm(SpectralNorm(w, clamp=True)(w))) == pytest.approx(expected, abs=1e-5)


def test_a_zero_matrix_recovers():
    """u and v must not be locked at zero: once the weight grows, its norm is found."""
    norm = SpectralNorm(torch.zeros(16, 16), clamp=True)
    norm.power_iteration(torch.zeros(16, 16))
    w = 5 * matrix(16)
    for _ in range(300):
        norm.power_iteration(w)
    assert float(spectral_norm(norm(w))) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("scale", "clamp"), [(1.0, False), (0.1, False), (3.0, True), (0.1, True)])
def test_gradient_goes_through_sigma(scale, clamp):
    """Against autograd through the exact norm, of which u and v are the derivative."""
    w, exact = ((scale * matrix(6)).requires_grad_() for _ in range(2))
    sigma = torch.linalg.matrix_norm(exact, ord=2)
    (SpectralNorm(w, clamp)(w) * matrix(6, seed=2)).sum().backward()
    (exact / (sigma.clamp(min=1) if clamp else sigma) * matrix(6, seed=2)).sum().backward()
    torch.testing.assert_close(w.grad, exact.grad, rtol=1e-5, atol=1e-5)
