"""The runs whose steps are timed, each through the way a user takes, with a call after every step."""

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from tools.server.in_process import pack

from ..common import base_models
from ..common.prompts import prompt_edit

config, patch = pack("ei2_modules.config"), pack("nodes.host.inflating.inflate")
sampling, schedule = pack("nodes.host.sampling.run"), pack("ei2_modules.diffusion.schedule")
guiding, unet = pack("nodes.host.control.guider"), pack("nodes.host.inflating.unet")
ControlOptions = pack("ei2_modules.attention.control.options").ControlOptions
record, null_text_job = (pack(f"nodes.host.{name}") for name in ("sampling.record", "null_text.job"))
Trajectory, NullTextRun = (
    pack("nodes.host.sampling.trajectory").Trajectory,
    pack("nodes.host.null_text.run").NullTextRun,
)
NullTextOptions = pack("ei2_modules.diffusion.null_text").NullTextOptions
tuning, Texts = pack("nodes.host.tuning.run"), pack("nodes.host.conditioning").Texts

GUIDANCE = 7.5
# all that an edit can take of its source, in every step
EVERYTHING = ControlOptions(cross_share=1.0, self_share=1.0, temporal_share=1.0, feature_share=1.0, blend_threshold=0.4)
Figure = float | np.ndarray
Run = Callable[[int, Callable], object]  # (steps, after) -> anything


@dataclass(frozen=True)
class Case:
    """A clip, its text and an inflated model."""

    model: object  # ModelPatcher
    clip: Tensor  # (n, c, h, w), in the scale of a LATENT
    text: list = field(default_factory=base_models.caption)  # CONDITIONING
    records: dict[int, list[Tensor]] = field(default_factory=dict)  # by the number of steps, see `noisy`

    @classmethod
    def inflated(cls, base, clip: Tensor, mode: str = "EI²", ratio: int = 2, **rest) -> "Case":
        return cls(patch.inflate(base, config.InflateOptions.from_mode(mode, "", "", coarse_ratio=ratio)), clip, **rest)

    def schedule(self, steps: int):
        return schedule.ddim_schedule(unet.sigma_table(self.model), steps)

    def noisy(self, steps: int) -> list[Tensor]:
        """The clip at every sigma, in the model's scale: for the time of a step as good as an inversion's record."""
        if steps not in self.records:
            clean = self.model.model.process_latent_in(self.clip)
            noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))
            self.records[steps] = [clean + sigma * noise for sigma in self.schedule(steps).sigmas]
        return self.records[steps]


def tune(case: Case, steps: int, after: Callable, precision: str, checkpointing: str = "off") -> None:
    inflated = patch.inflated_of(case.model, "this benchmark")
    job = tuning.TuningJob(
        case.model, inflated, case.clip, Texts(case.text), config.TuningOptions(steps),
        precision=precision, checkpointing=checkpointing,
    )  # fmt: skip
    tuning.TuningRun(job).execute(None, after)


def invert(case: Case, steps: int, after: Callable) -> None:
    sampling.invert(case.model, case.clip, case.text, case.schedule(steps), 0, after)


def sample(case: Case, steps: int, after: Callable) -> None:
    """With guidance: two passes over the clip, in one call of the UNet."""
    _sample(case, steps, after)


def controlled(case: Case, steps: int, after: Callable, options=EVERYTHING) -> None:
    """The same under attention control: one pass more, over the source."""
    spec = patch.inflated_of(case.model, "this benchmark").spec
    control, clip = (
        guiding.Control(prompt_edit(case.text), options),
        guiding.SourceClip(case.schedule(steps), case.noisy(steps), case.noisy(steps)[-1]),
    )
    _sample(case, steps, after, guiding.ControlledGuider(case.model, spec, control, clip))


def null_text(case: Case, steps: int, updates: int) -> None:
    """Null-Text Inversion of the clip, with no early stop: sampled, fitted, and sampled again."""
    inflated, grid = patch.inflated_of(case.model, "this benchmark"), case.schedule(steps)
    trajectory = Trajectory(0)
    for latents in case.noisy(steps):
        trajectory.append(latents)
    inversion = record.Inversion(steps, grid.sigma_end, inflated.spec.prediction, inflated.fingerprint, trajectory)
    noise = case.model.model.process_latent_out(case.noisy(steps)[-1])
    latent = record.with_inversion({"samples": case.clip}, noise, inversion)
    options = NullTextOptions(updates, stop=0.0)
    job = null_text_job.make_job(
        case.model, latent, case.text, case.text, GUIDANCE, options, decoupled=True, last_half=False
    )
    NullTextRun(job).execute()


def differences(run: Run, steps: int, read: Callable[[], Figure]) -> list[Figure]:
    """What a figure, or an array of them, rose by in each of so many steps. The first step, which has more to do, is
    left out."""
    found = []
    run(steps + 1, lambda *args: found.append(read()))
    return [after - before for before, after in itertools.pairwise(found)]


@contextlib.contextmanager
def counted_calls(model, found: list[int]):
    """Rows of every call of the UNet."""
    handle = model.model.diffusion_model.register_forward_pre_hook(lambda _, args: found.append(len(args[0])))
    try:
        yield
    finally:
        handle.remove()


def _sample(case: Case, steps: int, after: Callable, guider=None) -> None:
    start = case.model.model.process_latent_out(case.noisy(steps)[-1])
    sampling.sample(case.model, start, case.text, case.text, GUIDANCE, case.schedule(steps), after, guider=guider)
