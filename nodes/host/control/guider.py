"""The host's guider with one pass more a step: over the source, for what the edit takes from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.attention.control.blend import LocalBlend, WordMaps, dilate
from ....ei2_modules.attention.control.moving_noise import moving_noise, renew
from ....ei2_modules.attention.control.options import ControlOptions
from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..inflating.keys import CONTROL
from .hooks import with_hooks
from .prompt_edit import PromptEdit
from .step import Editing, Looking, Recording, Step

SAME_SIGMA = 1e-3  # relative
LOOKS = 5  # steps of the source that say where a word is seen: all 25 say hardly more


@dataclass(frozen=True, eq=False)
class Control:
    """What Attention Control gives: never changed."""

    edit: PromptEdit
    options: ControlOptions
    mask: Tensor | None = None  # where the clip may change; instead of the words' own


class ControlledGuider(comfy.samplers.CFGGuider):
    """For one sampling of one inverted latent. trajectory: the clip's latents at every sigma of the schedule."""

    def __init__(
        self, model: ModelPatcher, spec: UNetSpec, control: Control, schedule: Schedule, trajectory: Sequence[Tensor]
    ):
        super().__init__(with_hooks(model, spec))
        self.control, self.schedule, self.trajectory = control, schedule, trajectory
        frames, _, *size = trajectory[0].shape
        threshold, dilation = control.options.blend_threshold, control.options.dilation
        self.blend = None
        if threshold and control.mask is None:
            self.blend = LocalBlend(frames, tuple(size), threshold, dilation, levels(model))

    def set_conds(self, positive: list, negative: list) -> None:
        self.inner_set_conds({"positive": positive, "negative": negative, "caption": self.control.edit.caption})

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        place = self._place(timestep)
        step = self._step(place)
        if step.needs_source:
            source = self.trajectory[place].to(x)
            with_step = _carrying(model_options, Recording(step))
            comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["caption"]], source, timestep, with_step)
        options = _carrying(model_options, Editing(step)) if step.needs_source else model_options
        return super().predict_noise(x, timestep, options, seed)

    def start(self, x: Tensor, extra_args: dict, seed: int) -> Tensor:
        """Before the first step: the noise under the old words renewed, if that is asked for."""
        options, tokens = self.control.options, self.control.edit.blend.source
        if not options.noise_share:
            return x
        if not tokens:
            raise EI2Error(
                "This kind of edit renews the noise where the old word is seen, and no word of the caption is replaced: "
                "name the word under blend words of Prompt Edit, or choose another kind of edit."
            )
        mask = self._seen(tokens, x, extra_args["model_options"])
        noise = moving_noise(mask.cpu(), x.shape[1], torch.Generator().manual_seed(seed))
        return renew(x, mask, noise, self.schedule.sigma_end, options.noise_share)

    def _seen(self, tokens: list[int], x: Tensor, model_options: dict) -> Tensor:
        """(n, 1, h, w) where words of the caption are seen in the source, by a look at a few of its steps."""
        frames, _, *size = x.shape
        words = WordMaps(frames, tuple(size), levels(self.model_patcher))
        looking, steps = _carrying(model_options, Looking(words, tokens)), self.schedule.steps
        for place in sorted({max(1, round(steps * (i + 0.5) / LOOKS)) for i in range(LOOKS)}):
            sigma = self.schedule.sigmas[place].to(x).expand(frames)
            source = self.trajectory[place].to(x)
            comfy.samplers.calc_cond_batch(self.inner_model, [self.conds["caption"]], source, sigma, looking)
        options = self.control.options
        seen = words.relative(pool=False, from_least=True) > options.noise_threshold
        return dilate(seen.float(), options.dilation)

    def after_step(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Outside the words of the edit the source is put back: x and sigma, a scalar, of the step that is done."""
        if self.blend is None:
            return x
        return self.blend(x, self.trajectory[self._place(sigma.reshape(1))])

    def _step(self, place: int) -> Step:
        share = (self.schedule.steps - place) / self.schedule.steps
        return Step(self.control.edit, self.control.options, share, self.blend)

    def _place(self, sigma: Tensor) -> int:
        sigmas = self.schedule.sigmas.to(sigma)
        place = int((sigmas - sigma[0]).abs().argmin())
        if abs(float(sigmas[place] - sigma[0])) > SAME_SIGMA * float(sigmas[place]):
            raise EI2Error(
                f"Attention control has no latents of the source at sigma {float(sigma[0]):.3f}: the sampler takes "
                "other steps than the inversion. Use the sigmas of EI² DDIM Sampler and a sampler of one call a step."
            )
        return place


def levels(model: ModelPatcher) -> tuple[float, float]:
    """Sides of the maps that show words, as shares of the latent's: a quarter where the UNet has so many levels (the
    published 16x16 of 64x64), and the finest of the miniature model."""
    deep = len(model.model.diffusion_model.num_res_blocks) > 2
    return (0.25, 0.25) if deep else (1.0, 1.0)


def _carrying(model_options: dict, control: Looking | Recording | Editing) -> dict:
    return {**model_options, "transformer_options": {**model_options["transformer_options"], CONTROL: control}}
