"""Inverts a clip, samples it back at guidance 1 and says in words how much came back."""

import torch

from ...ei2_modules.metrics import psnr
from ...ei2_modules.schedule import Schedule
from . import sampling
from .progress import Progress


def invert_and_check(model, samples, positive, schedule: Schedule, iterations: int, vae):
    """(noise, report). With iterations the plain rule is run too, so that the report shows what they gained."""
    passes = 4 if iterations else 2
    progress = Progress(model, passes * schedule.steps)
    noise, convergence = sampling.invert(model, samples, positive, schedule, iterations, progress.callback())
    back = _sample_back(model, noise, positive, schedule, progress)
    lines = [
        f"DDIM inversion: {len(samples)} frames, {schedule.steps} steps, sigma {schedule.sigma_end:.2f} at the end",
        convergence.describe(),
        _figures("reconstruction at guidance 1, latent", samples, back, span(samples)),
    ]
    if iterations:
        plain, _ = sampling.invert(model, samples, positive, schedule, 0, progress.callback())
        plain = _sample_back(model, plain, positive, schedule, progress)
        lines.append(_figures("the plain rule's, latent", samples, plain, span(samples)))
    if vae is not None:
        lines.append(_figures("reconstruction at guidance 1, pixels", _decode(vae, samples), _decode(vae, back)))
    return noise, "\n".join(lines)


def _sample_back(model, noise, positive, schedule, progress):
    return sampling.sample(model, noise, positive, positive, 1.0, schedule, 0.0, 0, progress.callback())


def _decode(vae, samples):
    images = vae.decode(samples)
    return images.reshape(-1, *images.shape[-3:]).clamp(0, 1).cpu()


def span(samples: torch.Tensor) -> float:
    """The range of a clip's latents: the peak of their PSNR."""
    return max(float(samples.max() - samples.min()), 1e-12)  # a flat clip has none


def _figures(name: str, reference, other, peak: float = 1.0) -> str:
    values = psnr(other.cpu(), reference.cpu(), peak).tolist()
    frames = " ".join(f"{v:.1f}" for v in values)
    return f"{name}: {sum(values) / len(values):.1f} dB PSNR (per frame {frames})"
