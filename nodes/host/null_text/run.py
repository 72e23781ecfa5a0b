"""Null-text inversion inside the host, from an inverted latent to its null text: to be read from top to end."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ....ei2_modules.diffusion.null_text import NullText, fit_null_text
from ....ei2_modules.diffusion.schedule import vp_scale
from ....ei2_modules.metrics.figures import psnr
from ....ei2_modules.tuning.own_copy import own_copy
from .. import conditioning
from ..control.null_text import FittedNullText
from ..inflating.temporal_hook import inference_bank
from ..not_finite import advising
from ..precision import computes_in
from ..progress import Progress, say, show_text
from ..sampling.round_trip import span
from ..tuning.model import IN_PLACE, computing_with, errors_in_words, gradient_clone, loaded_whole
from ..tuning.preflight import Demand
from . import preflight
from .guider import NullTextGuider
from .job import NullTextJob

INFERENCE = "Inference tensors"  # words of PyTorch's error: a patch holds some, which cannot be saved for backward
PATCHED = (
    "Another node's patch of the model cannot be gone through backwards, as Null-Text Inversion must. Take the nodes "
    "that patch the model off it, one by one, to find which; leave it out of the inversion too."
)


class NullTextRun:
    """One null-text inversion, and what is left of it when it stops early."""

    def __init__(self, job: NullTextJob, done: NullText | None = None):
        """done: steps of the same job to go on from."""
        self.job, self.done = job, done
        self.demand: Demand | None = None  # of an update
        self.before: list[float] = []  # PSNR of every frame at this cfg without the null text, and with it
        self.after: list[float] = []
        self.seconds = 0.0  # of the fit

    def execute(self) -> FittedNullText:
        job = self.job
        with (
            errors_in_words(self._out_of_memory, PATCHED, (IN_PLACE, INFERENCE)),
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            control = conditioning.has_control([*job.positive, *job.negative])
            clone = gradient_clone(job.model, "null-text inversion", control)
            inflated, device = job.inflated, clone.load_device
            bank = inference_bank(job.model, inflated.spec, inflated.options, inflated.weights).to(device)
            with loaded_whole(clone):
                self.demand = preflight.demand_of(job.start.samples, computes_in(clone.model), clone, job.numbers)
                with computing_with(clone, bank, {}, self.demand.checkpointing), advising(clone.model):
                    guider = NullTextGuider(clone, job.positive, job.negative, job.start.schedule)
                    guider.run(job.start.samples, lambda: self._fit(guider))
        return self.fitted()

    def fitted(self) -> FittedNullText:
        """Of a whole run."""
        job = self.job
        text = _in_last_half(self.done, job.negative[0][0]) if job.last_half else self.done
        of = job.inflated.fingerprint, tuple(job.inversion.checksums), conditioning.checksum(job.positive)
        return FittedNullText(text, job.decoupled, *of)

    def _fit(self, guider: NullTextGuider) -> None:
        job, steps, inner = self.job, self.job.start.schedule.steps, self.job.options.inner
        progress = Progress(job.model, steps * (2 + 3 * inner + 2 + 2))  # passes, a backward one as two
        trajectory, began = _OwnCopies(job.inversion.trajectory), time.monotonic()
        self.before = self._comes_back(guider, trajectory, progress, lambda sigma: guider.empty)
        each = (time.monotonic() - began) / (2 * steps)
        say(preflight.announce(self.demand, steps, inner, each, job.model.load_device))
        began, sigmas = time.monotonic(), job.start.schedule.sigmas
        texts = guider.under, guider.under_caption
        for done in fit_null_text(*texts, trajectory, sigmas, guider.empty, job.cfg, job.options, self.done):
            if self.done is None or len(done.sigmas) > len(self.done.sigmas):
                self.done = done
            progress.advance(guider.shown, passes=3 * inner + 2)
            show_text(f"null text: step {len(done.sigmas)} of {steps}, loss {done.losses[-1]:.2e}")
        self.seconds = time.monotonic() - began
        self.after = self._comes_back(guider, trajectory, progress, self.fitted().text.at)

    def _comes_back(
        self, guider: NullTextGuider, trajectory: Sequence[Tensor], progress: Progress, at: Callable
    ) -> list[float]:
        """dB of every frame, in latents of the model's scale."""
        clip = trajectory[0] / vp_scale(self.job.start.schedule.sigmas[0])
        back = guider.sampled(trajectory[-1], self.job.cfg, at, lambda now: progress.advance(now["denoised"], passes=2))
        return psnr(back.cpu(), clip, span(clip)).tolist()

    def _out_of_memory(self) -> str:
        if self.demand is None:  # the model alone is too much: the host's own words say that
            return ""
        return preflight.out_of_memory(self.demand, self.job.model.load_device)


class _OwnCopies(Sequence):
    """Of the inversion's latents, made where they are asked for: inference tensors cannot be saved for backward."""

    def __init__(self, trajectory: Sequence[Tensor]):
        self.trajectory = trajectory

    def __len__(self) -> int:
        return len(self.trajectory)

    def __getitem__(self, i: int) -> Tensor:
        return own_copy(self.trajectory[i])


def _in_last_half(fitted: NullText, plain: Tensor) -> NullText:
    """Fitted at every step, used in the last half alone, as vid2vid-zero does: the first half has the plain text."""
    embeddings = fitted.embeddings.clone()
    embeddings[: -(-len(embeddings) // 2)] = plain.to(embeddings)
    return replace(fitted, embeddings=embeddings)
