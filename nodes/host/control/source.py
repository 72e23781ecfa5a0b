"""Where the source of an edit is at each sigma of the schedule, from the noise (the last) down to the clip (0)."""

from collections.abc import Sequence

from torch import Tensor

from ....ei2_modules.diffusion.sampling import ddim_step
from ....ei2_modules.diffusion.schedule import Schedule


class AlongInversion:
    """At the very latents that the inversion went through: it comes back as the clip itself."""

    def __init__(self, trajectory: Sequence[Tensor]):
        self.trajectory = trajectory

    def at(self, place: int) -> Tensor:
        return self.trajectory[place]

    def predicted(self, place: int, denoised: Tensor) -> None:
        """Not needed here."""


class OwnPrediction:
    """Sampled beside the edit from the same noise, a DDIM step at a time."""

    def __init__(self, noise: Tensor, schedule: Schedule):
        self.schedule = schedule
        self.latents = {schedule.steps: noise}

    def at(self, place: int) -> Tensor:
        return self.latents[place]

    def predicted(self, place: int, denoised: Tensor) -> None:
        """The model's x0 at a place: from there the next one below follows."""
        x, sigmas = self.latents[place], self.schedule.sigmas.to(denoised)
        self.latents = {place: x, place - 1: ddim_step(x.to(denoised), denoised, sigmas[place], sigmas[place - 1])}
