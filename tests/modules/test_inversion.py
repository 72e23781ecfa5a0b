"""Inversion and sampling against the published rule written in its own (variance preserving) units."""

import pytest
import torch

from ei2_modules.diffusion.inversion import Convergence, invert_ddim
from ei2_modules.diffusion.sampling import sample_ddim
from ei2_modules.diffusion.schedule import ddim_schedule

from .sd_schedule import sd_sigmas

SIGMAS = sd_sigmas()
ABAR = 1 / (1 + SIGMAS**2)


class ToyUNet:
    """A smooth network in VP units, seen by the loops as a host model (VE in, x0 out); eps or v."""

    def __init__(self, prediction="eps", strength=0.15):
        generator = torch.Generator().manual_seed(0)
        self.a, self.b = (torch.randn(8, 8, generator=generator, dtype=torch.float64) / 8 for _ in range(2))
        self.prediction, self.strength, self.calls = prediction, strength, []

    def raw(self, z, t):
        return self.strength * torch.tanh(z @ self.a + t / 1000) @ self.b * 8

    def eps(self, z, t):
        """What the network says about the noise in a VP latent z at timestep t."""
        if self.prediction == "eps":
            return self.raw(z, t)
        return ABAR[t].sqrt() * self.raw(z, t) + (1 - ABAR[t]).sqrt() * z

    def __call__(self, x, sigma):
        t = int((SIGMAS - sigma[0]).abs().argmin())
        self.calls.append(t)
        return x - self.eps(x * ABAR[t].sqrt(), t) * SIGMAS[t]


def vp_invert(net, z, steps):
    """Tune-A-Video's next_step: noise predicted at the target timestep of the source latent."""
    previous = ABAR[0]
    for t in range(1, 1000 // steps * steps + 1, 1000 // steps):
        eps = net.eps(z, t)
        z0 = (z - (1 - previous).sqrt() * eps) / previous.sqrt()
        z = ABAR[t].sqrt() * z0 + (1 - ABAR[t]).sqrt() * eps
        previous = ABAR[t]
    return z


def vp_sample(net, z, steps, eta=0.0, generator=None):
    """DDIM eq. 12, down to abar_0."""
    stride = 1000 // steps
    for t in reversed(range(1, stride * steps + 1, stride)):
        previous = ABAR[t - stride] if t > 1 else ABAR[0]
        eps = net.eps(z, t)
        z0 = (z - (1 - ABAR[t]).sqrt() * eps) / ABAR[t].sqrt()
        s = eta * ((1 - previous) / (1 - ABAR[t]) * (1 - ABAR[t] / previous)).sqrt()
        z = previous.sqrt() * z0 + (1 - previous - s**2).sqrt() * eps
        if eta:
            z = z + s * torch.randn(z.shape, generator=generator, dtype=torch.float32).double()
    return z


def latents():
    return torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def schedule(steps):
    return ddim_schedule(SIGMAS, steps)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("steps", [1, 5, 50])
def test_inversion_is_the_published_rule(prediction, steps):
    net = ToyUNet(prediction)
    ours = invert_ddim(net, latents(), schedule(steps).sigmas.double())
    end = ABAR[1000 // steps * (steps - 1) + 1]
    torch.testing.assert_close(ours * end.sqrt(), vp_invert(net, latents(), steps), rtol=0, atol=1e-5)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_sampling_is_ddim(prediction, eta):
    net, start = ToyUNet(prediction), schedule(10)
    noise = latents()
    ours = sample_ddim(
        net, noise * start.sigma_end, start.descending.double(), eta=eta, generator=torch.Generator().manual_seed(3)
    )
    end = 1 / (1 + start.sigma_end**2) ** 0.5
    reference = vp_sample(net, noise * start.sigma_end * end, 10, eta, torch.Generator().manual_seed(3))
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-5)


def test_one_call_a_step_at_the_target_timestep():
    net = ToyUNet()
    invert_ddim(net, latents(), schedule(50).sigmas.double())
    assert net.calls == list(range(1, 982, 20))
    net.calls.clear()
    sample_ddim(net, latents(), schedule(50).descending.double())
    assert net.calls == list(range(981, 0, -20))


@pytest.mark.parametrize("iterations", [1, 5])
def test_iterations_cost_as_many_calls(iterations):
    net = ToyUNet()
    invert_ddim(net, latents(), schedule(10).sigmas.double(), iterations=iterations)
    assert len(net.calls) == 10 * (1 + iterations)


def round_trip_db(iterations, net):
    convergence = Convergence(iterations)
    noise = invert_ddim(net, latents(), schedule(50).sigmas.double(), iterations=iterations, convergence=convergence)
    back = sample_ddim(net, noise, schedule(50).descending.double())
    error = (back - latents()).square().mean()
    return float(10 * torch.log10((latents().max() - latents().min()) ** 2 / error)), convergence


def test_fixed_point_makes_the_round_trip_exact():
    plain, _ = round_trip_db(0, ToyUNet())
    five, convergence = round_trip_db(5, ToyUNet())
    assert five > 60 > plain
    assert not convergence.failed_steps()
    assert "converged at every step" in convergence.describe()


def test_divergence_is_said():
    _, convergence = round_trip_db(3, ToyUNet(strength=40.0))
    assert convergence.failed_steps()
    assert "did not converge" in convergence.describe()


def test_the_report_names_the_first_step_that_failed():
    convergence = Convergence(2, residuals=[1e-4, 2e-2, 1e-4, 3e-2], previous=[1e-3, 1e-2, 1e-3, 5e-2])
    assert convergence.failed_steps() == [2, 4]
    assert "at 2 of 4 steps (first at step 2, worst residual 3.0e-02, still growing at 1)" in convergence.describe()
    assert "WARNING" in convergence.describe()


def test_a_nan_counts_as_not_converged():
    convergence = Convergence(1, [float("nan")], [1.0])
    assert convergence.failed_steps() == [1]


def test_the_input_is_left_alone():
    x = latents()
    invert_ddim(ToyUNet(), x, schedule(3).sigmas.double())
    assert torch.equal(x, latents())


def test_callback_sees_every_step():
    seen = []
    invert_ddim(ToyUNet(), latents(), schedule(4).sigmas.double(), callback=lambda d: seen.append(d["i"]))
    assert seen == [0, 1, 2, 3]
