"""The published grid, in numbers that were read off the published code's schedule."""

import pytest
import torch

from ei2_modules.diffusion.schedule import ddim_schedule, ddim_timesteps, vp_scale
from ei2_modules.errors import EI2Error

from .sd_schedule import sd_sigmas


@pytest.mark.parametrize(
    ("steps", "first", "second", "last"),
    [(50, 1, 21, 981), (20, 1, 51, 951), (10, 1, 101, 901), (30, 1, 34, 958), (1, 1, 1, 1), (500, 1, 3, 999)],
)
def test_timesteps(steps, first, second, last):
    grid = ddim_timesteps(steps)
    assert (len(grid), grid[0], grid[min(1, steps - 1)], grid[-1]) == (steps, first, second, last)


@pytest.mark.parametrize("steps", [0, -1, 501, 1000])
def test_impossible_numbers_of_steps(steps):
    with pytest.raises(EI2Error, match=f"steps is {steps}"):
        ddim_timesteps(steps)


def test_sigmas_of_the_published_grid():
    schedule = ddim_schedule(sd_sigmas(), 50)
    expected = {0: 0.02917, 1: 0.04131, 2: 0.14146, 25: 1.51922, 50: 13.12041}
    for index, sigma in expected.items():
        assert float(schedule.sigmas[index]) == pytest.approx(sigma, abs=1e-4)
    assert schedule.sigma_end == pytest.approx(13.12, abs=5e-3)
    assert torch.equal(schedule.descending, schedule.sigmas.flip(0))
    assert schedule.sigmas.min() > 0, "the model may never be asked at sigma 0"


def test_vp_scale():
    abar = 1 / (1 + sd_sigmas() ** 2)
    torch.testing.assert_close(vp_scale(sd_sigmas()), abar.rsqrt())
