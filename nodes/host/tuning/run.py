"""One-shot tuning inside the host, from the inflated model to its tuned weights: one loop, to be read from top to end.

model.py makes a clone ready to be trained in and puts everything back; guider.py is what a step sees; the step itself
is `Tuning` of ei2_modules; record.py counts. What a user sees, and what is kept on disk, hangs on `after_step`.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.config import TuningOptions
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.weights import EI2Weights, make_header
from ....ei2_modules.tuning import state as tuning_state
from ....ei2_modules.tuning.loop import Tuning
from ....ei2_modules.tuning.own_copy import own_copy
from ....ei2_modules.tuning.trainables import Trainables
from .. import conditioning
from ..conditioning import Texts
from ..inflating.inflate import Inflated
from ..precision import compute_dtype
from ..progress import say
from . import preflight
from .guider import TuningGuider
from .model import computing_with, loaded_for_training, tuning_clone
from .preflight import Demand
from .record import TuningRecord
from .run_card import run_card

PROBE_SECONDS = 20.0  # a first pass that took longer is not repeated


@dataclass(frozen=True)
class TuningJob:
    """What is asked for. The model is not changed."""

    model: ModelPatcher
    inflated: Inflated
    samples: Tensor  # (n, c, h, w), the clip in the scale of a LATENT
    texts: Texts
    options: TuningOptions
    start: EI2Weights | None = None  # to go on from, with a fresh optimiser
    precision: str = "auto"  # of what the frozen model computes in
    checkpointing: str = "auto"
    caption: str | None = None  # in words, for the run card

    @property
    def dtype(self) -> torch.dtype:
        return compute_dtype(self.precision, self.model.load_device)


class TuningRun:
    """One tuning, and what is left of it when it stops early."""

    def __init__(self, job: TuningJob):
        self.job = job
        self.tuning: Tuning | None = None  # from here on there is something to keep
        self.demand: Demand | None = None  # of a step
        self.record: TuningRecord | None = None

    def execute(self, origin: Path | None, after_step: Callable[[int, Tensor, Callable[[], Tensor]], None]) -> None:
        """Tune, or go on from the state at `origin`.

        after_step(number, clean, sample): clean is what is shown of the clip, sample() what the model makes of it.
        """
        job, spec = self.job, self.job.inflated.spec
        with self._in_words(), torch.inference_mode(False), torch.enable_grad():
            self.record = TuningRecord(job.model.load_device)
            control = conditioning.has_control(job.texts.positive)
            clone = tuning_clone(job.model, job.inflated, job.dtype, control)
            with loaded_for_training(clone, spec) as queries:
                start = job.start.tensors if job.start else None
                trainables = Trainables(spec, job.inflated.options, queries, start)
                tuning = Tuning(trainables, job.options, loss_scaling=job.dtype == torch.float16)
                if origin is not None:
                    self.record.go_on_from(tuning_state.restore(origin, tuning))
                self.tuning = tuning
                demand = Demand.of(job.samples[: job.options.window], job.dtype, clone, trainables.count())
                self.demand = demand.choose(job.checkpointing, job.model.load_device)
                with computing_with(clone, trainables.bank, trainables.queries(), self.demand.checkpointing):
                    guider = TuningGuider(clone, job.texts)
                    guider.run(own_copy(job.samples), lambda clean: self._loop(guider, clean, after_step))

    def _loop(self, guider: TuningGuider, clean: Tensor, after_step: Callable) -> None:
        """clean: (n, c, h, w), the clip in the model's scale."""
        tuning, options = self.tuning, self.job.options
        shown = clean[: options.window]
        if tuning.done < options.steps:
            self._announce(guider, shown)
        sigmas = guider.sigmas.to(clean.device)
        for step in tuning.steps(guider.denoise, clean, sigmas, self.job.inflated.spec.prediction):
            self.record.after_step()
            if step.unmoved:
                logging.warning(
                    "EI²: %d of the query projections (first %s) are not trained: another node replaces the attention "
                    "there by one without gradients.", len(step.unmoved), step.unmoved[0],
                )  # fmt: skip
            after_step(step.number, shown, lambda: guider.quick_sample(shown, options.seed))

    def _announce(self, guider: TuningGuider, shown: Tensor) -> None:
        """Say what is to come, from one pass over the clip; a first one has more to do than all others."""
        seconds = []
        while len(seconds) < 2 and sum(seconds) < PROBE_SECONDS:
            began = time.monotonic()
            guider.one_pass(shown)
            seconds.append(time.monotonic() - began)
        steps = self.job.options.steps - self.tuning.done
        say(preflight.announce(self.demand, steps, seconds[-1], self.job.model.load_device))

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        """Errors of the host and of PyTorch that a user can do something about."""
        try:
            yield
        except mm.OOM_EXCEPTION as error:
            if self.demand is None:  # the model alone is too much: the host's own words say that
                raise
            raise EI2Error(preflight.out_of_memory(self.demand, self.job.model.load_device)) from error
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise EI2Error(
                "Another node's patch of the model changes in place what the gradients of tuning need. Put the nodes "
                "that patch the model behind One-Shot Tune, or leave them out."
            ) from error

    @property
    def losses(self) -> list[float]:
        """Of the whole steps, those before a stop too."""
        return self.tuning.losses if self.tuning else []

    def weights(self) -> EI2Weights:
        """Of the last whole step."""
        job, inflated = self.job, self.job.inflated
        card = run_card(job.caption, len(job.samples), self.tuning, self.demand, self.record)
        header = make_header(inflated.spec, inflated.options, inflated.fingerprint.numbers, card)
        return EI2Weights(header, self.tuning.trainables.export())
