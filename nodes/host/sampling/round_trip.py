"""Inverts a clip, samples it back at guidance 1 and says in words how much came back."""

import logging
from dataclasses import dataclass
from functools import cached_property

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from PIL import Image
from torch import Tensor

from ....ei2_modules.diffusion.finite import first_not_finite
from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.metrics.figures import psnr
from .. import plots
from ..attempt import attempt
from ..inflating.guidance import without_guidance
from ..latents import pixels
from ..not_finite import vae_advice
from ..precision import computes_in, dtype_name
from ..progress import Progress, to_pil
from ..side_by_side import below, label, side_by_side
from . import run as sampling
from .trajectory import Trajectory

POOR = 20.0  # dB: from here on a difference is seen at a glance
FEW_STEPS = 20
GAP = 4  # pixels between two pictures


@dataclass(frozen=True)
class RoundTrip:
    """Inverted noise and how well it leads back."""

    noise: Tensor
    trajectory: Trajectory
    per_frame: list[float]  # dB, in pixels where there is a VAE
    lines: list[str]
    warning: str | None
    worst: tuple[Tensor, Tensor] | None = None  # the frame that comes back worst: (h, w, 3) of the clip, and come back

    @property
    def report(self) -> str:
        return "\n".join([*self.lines, f"WARNING: {self.warning}"] if self.warning else self.lines)

    @property
    def summary(self) -> str:
        """For the node itself, where there is little room."""
        return self.warning or f"the clip comes back well at guidance 1: {figure(self.per_frame)}"

    @cached_property
    def picture(self) -> Image.Image:
        """The verdict, the worst frame before and after, and the curve: what the node shows when it is done."""
        curve = plots.curve(self.per_frame, "round trip at guidance 1: PSNR of every frame, dB", dots=False)
        shown = label(self.summary, plots.WIDTH)
        if self.worst is not None:
            where = f"frame {worst_of(self.per_frame) + 1}"
            frames = [[to_pil(frame)] for frame in self.worst]
            (pair,) = side_by_side(frames, [f"source, {where}", "come back"], (plots.WIDTH - GAP) // 2)
            shown = below(shown, pair)
        return below(shown, curve)


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
    failed, worst = None, None
    if vae is not None:
        values, worst, failed = _in_pixels(vae, back, samples)
        per_frame = values or per_frame
        lines.append(figures("reconstruction at guidance 1, pixels", values))
    warning = failed or poor(per_frame, schedule.steps, iterations, computes_in(model.model), tuned)
    if warning:
        logging.warning("EI²: %s", warning)
    trip = RoundTrip(noise, trajectory, per_frame, lines, warning, worst)
    progress.advance_to(progress.total, image=trip.picture)  # an editor may go on showing the last preview
    return trip


def poor(per_frame: list[float], steps: int, iterations: int, dtype: torch.dtype, tuned: bool) -> str | None:
    """What is wrong with a round trip of so many dB a frame, and its likely cause; None when it is well."""
    mean = sum(per_frame) / len(per_frame)
    bad = [i + 1 for i, value in enumerate(per_frame) if not value >= POOR]
    if mean >= POOR and not bad:
        return None
    causes = {
        f"only {steps} steps: use 50": steps < FEW_STEPS,
        f"the model computes in {dtype_name(dtype)}: try bf16 or fp32": dtype == torch.float16,
        "the model is not tuned on this clip: put One-Shot Tune before this node": not tuned,
        "the plain rule is not exact: set fixed_point_iterations to 3": not iterations,
    }
    likely = next((cause for cause, holds in causes.items() if holds), "use more steps, or empty text as positive")
    frames = "all frames" if len(bad) == len(per_frame) else f"frame{'s' * (len(bad) > 1)} {', '.join(map(str, bad))}"
    what = f"the clip does not come back well at guidance 1: {figure(per_frame)}; {frames} below {POOR:.0f}"
    return f"{what}. Edits will stray from the clip. Likely cause: {likely}."


def worst_of(per_frame: list[float]) -> int:
    """Which frame, counted from 0."""
    return min(range(len(per_frame)), key=per_frame.__getitem__)


def figure(per_frame: list[float]) -> str:
    """Mean and worst, and which of them is which."""
    mean = f"{sum(per_frame) / len(per_frame):.1f} dB"
    worst = worst_of(per_frame)
    return mean if len(per_frame) == 1 else f"{mean} on average, worst frame {worst + 1} with {per_frame[worst]:.1f} dB"


def _sample_back(model, noise, positive, schedule, progress):
    return sampling.sample(model, noise, positive, positive, 1.0, schedule, progress.callback())


def _in_pixels(vae: VAE, back: Tensor, samples: Tensor):
    """(PSNR of every frame, the worst before and after, None), or (None, None, why not): the inversion is done, and
    worth more than its figure."""
    clips, why = attempt("the VAE could not decode the round trip", lambda: [pixels(vae, c) for c in (samples, back)])
    why = why or _not_finite(vae, *clips)
    if why:
        return None, None, why
    per_frame = psnr(*clips).tolist()
    worst = worst_of(per_frame)
    return per_frame, tuple(frames[worst] for frames in clips), None


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
