"""Inverts a clip, samples it back at guidance 1 and says in words how much came back."""

import logging
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ....ei2_modules.diffusion.finite import first_not_finite
from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.metrics.figures import psnr
from ..attempt import attempt
from ..inflating.guidance import without_guidance
from ..latents import pixels
from ..precision import computes_in, dtype_name
from ..progress import Progress
from . import run as sampling
from .not_finite import vae_advice
from .trajectory import Trajectory

POOR = 20.0  # dB: from here on a difference is seen at a glance
FEW_STEPS = 20


@dataclass(frozen=True)
class RoundTrip:
    """Inverted noise and how well it leads back."""

    noise: Tensor
    trajectory: Trajectory
    per_frame: list[float]  # dB, in pixels where there is a VAE
    lines: list[str]

    warning: str | None

    @property
    def report(self) -> str:
        return "\n".join([*self.lines, f"WARNING: {self.warning}"] if self.warning else self.lines)

    @property
    def summary(self) -> str:
        """For the node itself, where there is little room."""
        mean, worst = sum(self.per_frame) / len(self.per_frame), min(self.per_frame)
        return self.warning or f"round trip {mean:.1f} dB, worst frame {worst:.1f} dB"


def invert_and_check(
    model: ModelPatcher,
    samples: Tensor,
    positive: list,
    schedule: Schedule,
    iterations: int,
    vae: VAE | None,
    tuned: bool,
) -> RoundTrip:
    """With iterations the plain rule is run too, so that the report shows what they gained."""
    model = without_guidance(model, "inversion")
    passes = 4 if iterations else 2
    progress = Progress(model, passes * schedule.steps)
    trajectory = Trajectory(samples.nbytes * (schedule.steps + 1))
    noise, convergence = sampling.invert(
        model, samples, positive, schedule, iterations, progress.callback(), trajectory
    )
    back = _sample_back(model, noise, positive, schedule, progress)
    per_frame = psnr(back.cpu(), samples.cpu(), span(samples)).tolist()
    lines = [
        f"DDIM inversion: {len(samples)} frames, {schedule.steps} steps, sigma {schedule.sigma_end:.2f} at the end",
        convergence.describe(),
        figures("reconstruction at guidance 1, latent", per_frame),
    ]
    if iterations:
        plain, _ = sampling.invert(model, samples, positive, schedule, 0, progress.callback())
        plain = _sample_back(model, plain, positive, schedule, progress)
        lines.append(figures("the plain rule's, latent", psnr(plain.cpu(), samples.cpu(), span(samples)).tolist()))
    failed = None
    if vae is not None:
        values, failed = _in_pixels(vae, back, samples)
        per_frame = values or per_frame
        lines.append(figures("reconstruction at guidance 1, pixels", values))
    warning = failed or poor(per_frame, schedule.steps, iterations, computes_in(model.model), tuned)
    if warning:
        logging.warning("EI²: %s", warning)
    return RoundTrip(noise, trajectory, per_frame, lines, warning)


def poor(per_frame: list[float], steps: int, iterations: int, dtype: torch.dtype, tuned: bool) -> str | None:
    """What is wrong with a round trip of so many dB a frame, and its likely cause; None when it is well."""
    mean = sum(per_frame) / len(per_frame)
    bad = [i + 1 for i, value in enumerate(per_frame) if not value >= POOR]
    if mean >= POOR and not bad:
        return None
    which = "all frames" if len(bad) == len(per_frame) else f"frames {', '.join(map(str, bad))}"
    causes = {
        f"only {steps} steps: use 50": steps < FEW_STEPS,
        f"the model computes in {dtype_name(dtype)}: try bf16 or fp32": dtype == torch.float16,
        "the model is not tuned on this clip: put One-Shot Tune before this node": not tuned,
        "the plain rule is not exact: set fixed_point_iterations to 3": not iterations,
    }
    likely = next((cause for cause, holds in causes.items() if holds), "use more steps, or empty text as positive")
    return (
        f"the clip does not come back well at guidance 1: {mean:.1f} dB, {which} below {POOR:.0f}. Edits will stray "
        f"from the clip. Likely cause: {likely}."
    )


def _sample_back(model, noise, positive, schedule, progress):
    return sampling.sample(model, noise, positive, positive, 1.0, schedule, progress.callback())


def _in_pixels(vae: VAE, back: Tensor, samples: Tensor) -> tuple[list[float] | None, str | None]:
    """(PSNR of every frame, None), or (None, why not): the inversion is done, and worth more than its figure."""
    clips, why = attempt("the VAE could not decode the round trip", lambda: [pixels(vae, c) for c in (back, samples)])
    why = why or _not_finite(vae, *clips)
    return (None, why) if why else (psnr(*clips).tolist(), None)


def _not_finite(vae: VAE, *clips: Tensor) -> str | None:
    """What is wrong with decoded clips (n, h, w, 3) that are not all numbers, and what to do about it."""
    for frames in clips:
        found = first_not_finite(frames)
        if found is not None:
            where = f"first in frame {found} of {len(frames)}"
            return f"the VAE's result is not finite, {where}. {vae_advice(vae)}"
    return None


def span(samples: Tensor) -> float:
    """The range of a clip's latents: the peak of their PSNR."""
    return max(float(samples.max() - samples.min()), 1e-12)  # a flat clip has none


def figures(name: str, values: list[float] | None) -> str:
    if values is None:
        return f"{name}: not measurable"
    frames = " ".join(f"{v:.1f}" for v in values)
    return f"{name}: {sum(values) / len(values):.1f} dB PSNR (per frame {frames})"
