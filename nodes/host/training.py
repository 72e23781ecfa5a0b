"""Runs one-shot tuning inside the host: its guider prepares conditioning and models, our loop does the steps."""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.model_management as mm
import comfy.samplers
import torch

from ...ei2_modules import tuning_state
from ...ei2_modules.config import TuningOptions
from ...ei2_modules.errors import EI2Error
from ...ei2_modules.sampling import sample_ddim
from ...ei2_modules.trainables import Trainables
from ...ei2_modules.tuning import Tuning
from ...ei2_modules.weights import EI2Weights, make_header
from . import conditioning, memory, preflight, run_card
from .conditioning import Texts
from .patch import KEY, Inflated, attach, detach
from .preflight import Demand
from .progress import say
from .run_card import PeakMemory
from .trained_model import checkpointed_bank, checkpointed_blocks, clone_for_tuning, trained_queries, unshare_skips
from .unet import sigma_table
from .windows import conds_of_frames

PREVIEW_TIMESTEPS = (0, 175, 350, 525, 700)  # of a quick sample: from so far up, colours and details are open
PREVIEW_STEPS = len(PREVIEW_TIMESTEPS) - 1
PROBE_SECONDS = 20.0  # a first pass that took longer is not repeated


@dataclass
class TuningRun:
    """One tuning, and what is left of it when it stops early."""

    state: Inflated
    options: TuningOptions
    precision: str = "auto"
    checkpointing: str = "auto"
    caption: str | None = None  # in words, for the run card
    origin: Path | None = None  # a state to go on from
    tuning: Tuning | None = None
    seconds: float = 0.0  # with those before a stop
    forward_seconds: float | None = None  # of one pass over the clip, before the first step
    demand: Demand | None = None  # of a step, which may not see the whole clip
    frames: int = 0  # of the clip
    _began: float = 0.0
    _before: float = 0.0
    _memory: PeakMemory | None = None

    def execute(self, model, samples, texts: Texts, start: EI2Weights | None, on_step: Callable) -> None:
        """Tune. on_step(step, clean, sample) after each step; clean: what a step sees, sample(): what is made of it."""
        dtype = self.dtype(model)
        self._began, self._memory = time.monotonic(), PeakMemory(model.load_device)
        try:
            with torch.inference_mode(False), torch.enable_grad():
                self._tune(model, samples, texts, start, on_step, dtype)
        except mm.OOM_EXCEPTION as error:
            if self.demand is None:  # the model alone is too much: the host's own words say that
                raise
            raise EI2Error(preflight.out_of_memory(self.demand, model.load_device)) from error
        except RuntimeError as error:
            if "modified by an inplace operation" not in str(error):
                raise
            raise EI2Error(
                "Another node's patch of the model changes in place what the gradients of tuning need. Put the nodes "
                "that patch the model behind One-Shot Tune, or leave them out."
            ) from error

    def dtype(self, model) -> torch.dtype:
        """What the frozen model computes in."""
        return memory.compute_dtype(self.precision, model.load_device)

    @property
    def losses(self) -> list[float]:
        """Of the whole steps, those before a stop too."""
        return self.tuning.losses if self.tuning else []

    def _tune(self, model, samples, texts, start, on_step, dtype) -> None:
        spec, options = self.state.spec, self.state.options
        clone = clone_for_tuning(model, self.state.weights, dtype)
        if conditioning.has_control(texts.positive):
            unshare_skips(clone)
        with memory.loaded_for_training(clone, spec) as unet:
            base = {path: unet.get_submodule(path).weight for path in spec.query_paths()}
            trainables = Trainables(spec, options, base, start.tensors if start else None)
            self._begin(Tuning(trainables, self.options, loss_scaling=dtype == torch.float16))
            self.frames = len(samples)
            demand = Demand.of(samples[: self.options.window], dtype, clone, trainables.count())
            self.demand = demand.choose(self.checkpointing, model.load_device)
            checkpointed = self.demand.checkpointing
            token = clone.model_options["transformer_options"][KEY]
            temporal = checkpointed_bank(trainables) if checkpointed else dict(trainables.bank.items())
            attach(clone.model, temporal, token)
            try:
                with trained_queries(unet, trainables), checkpointed_blocks(unet, checkpointed):
                    guider = _Guider(clone, texts)
                    guider.run(samples.clone(), lambda clean: self._steps(guider, clone, clean, on_step))
            finally:
                detach(clone.model)

    def _begin(self, tuning: Tuning) -> None:
        if self.origin is not None:
            self._before = tuning_state.restore(self.origin, tuning)
        self.tuning, self.seconds = tuning, self._before

    def _steps(self, guider: "_Guider", model, clean, on_step) -> None:
        sigmas = sigma_table(model).to(clean.device)
        shown = clean[: self.options.window]
        sample = guider.quick_sample(shown, sigmas[list(PREVIEW_TIMESTEPS)].flip(0), self.options.seed)
        if self.tuning.done < self.options.steps:
            self._announce(guider, shown, sigmas, model.load_device)
        for step in self.tuning.steps(guider.denoise, clean, sigmas, self.state.spec.prediction):
            self.seconds = self._before + time.monotonic() - self._began
            self._memory.look()
            on_step(step, shown, sample)

    @torch.no_grad()
    def _announce(self, guider: "_Guider", clean, sigmas, device) -> None:
        """Say what is to come, from one pass over the clip; a first one has more to do than all others."""
        seconds = []
        while len(seconds) < 2 and sum(seconds) < PROBE_SECONDS:
            began = time.monotonic()
            seen = guider(clean, sigmas[0].expand(len(clean)), **guider.extra_args)
            seen.sum().item()  # waits until the device is ready
            seconds.append(time.monotonic() - began)
        self.forward_seconds = seconds[-1]
        say(preflight.announce(self.demand, self.options.steps - self.tuning.done, self.forward_seconds, device))

    def weights(self) -> EI2Weights:
        """The weights of the last whole step."""
        demand = self.demand
        run = {
            **run_card.machine(self._memory.device),
            "caption": self.caption,
            "frames": self.frames,
            "window": demand.frames,
            "latent_size": [demand.height, demand.width],
            "steps": len(self.losses),
            "learning_rate": self.options.learning_rate,
            "seed": self.options.seed,
            "precision": str(demand.dtype).removeprefix("torch."),
            "gradient_checkpointing": demand.checkpointing,
            "seconds": round(self.seconds, 2),
            "peak_mib": self._memory.mib,
            **run_card.losses(self.losses),
        }
        header = make_header(self.state.spec, self.state.options, self.state.fingerprint, run)
        return EI2Weights(header, self.tuning.trainables.export())


class _Guider(comfy.samplers.CFGGuider):
    """The host's guider with our loop in place of a sampler."""

    guidance = 7.5  # of the preview, when a negative is wired

    def __init__(self, model, texts: Texts):
        super().__init__(model)
        self.has_negative = bool(texts.negative)
        texts = {
            "positive": texts.positive,
            "negative": texts.negative or texts.positive,
            "validation": texts.validation or texts.positive,
        }
        self.inner_set_conds({name: conditioning.out_of_inference_mode(text) for name, text in texts.items()})

    def run(self, samples, body: Callable) -> None:
        table = self.model_patcher.get_model_object("model_sampling").sigmas
        sampler = _LoopSampler(self, body)
        self.sample(torch.zeros_like(samples), samples, sampler, table.flip(0).clone(), disable_pbar=True)

    def denoise(self, x, sigma, frames: range):
        """x0 of these frames of the clip under their caption alone, differentiable."""
        caption = conds_of_frames(self.conds["positive"], list(frames))
        with self._under(conditioning.freeze_controls(caption)):
            return self(x, sigma, **self.extra_args)

    def quick_sample(self, clean, sigmas, seed: int) -> Callable:
        """A function that samples the clip under the validation text, from noise over it that never changes."""
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
        x = clean + sigmas[0] * noise

        def sample():
            with self._under(self.conds["validation"], self.guidance if self.has_negative else 1.0):
                return sample_ddim(self, x, sigmas, self.extra_args)

        return sample

    @contextlib.contextmanager
    def _under(self, positive: list[dict], cfg: float = 1.0):
        """With this text, already prepared, in place of the caption."""
        caption, self.conds["positive"] = self.conds["positive"], positive
        self.set_cfg(cfg)
        try:
            yield
        finally:
            self.conds["positive"] = caption
            self.set_cfg(1.0)


class _LoopSampler(comfy.samplers.Sampler):
    def __init__(self, guider: _Guider, body: Callable):
        self.guider, self.body = guider, body

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        self.guider.extra_args = extra_args
        self.body(latent_image)
        return latent_image
