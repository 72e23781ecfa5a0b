"""The host's guider with one pass more a step: over the source, for what the edit takes from it."""

from collections.abc import Sequence
from dataclasses import dataclass

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ....ei2_modules.attention.control.blend import LocalBlend, WordMaps, dilate
from ....ei2_modules.attention.control.moving_noise import moving_noise, renew
from ....ei2_modules.attention.control.options import ControlOptions
from ....ei2_modules.diffusion.finite import watched
from ....ei2_modules.diffusion.sampling import ddim_step
from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..inflating.keys import OURS
from ..not_finite import advising
from ..progress import warn
from .hooks import carrying, with_hooks
from .looking import Looking, looks
from .null_text import FittedNullText
from .prompt_edit import PromptEdit
from .source import AlongInversion, OwnPrediction
from .start import check_start, check_whole, place_of
from .step import Editing, Recording, Step

STRAYED = 3.0  # relative: noise of an ancestral sampler makes 1.4, what runs away 3.7 (10 steps) to thousands (50)


@dataclass(frozen=True, eq=False)
class Control:
    """What Attention Control gives: never changed."""

    edit: PromptEdit
    options: ControlOptions
    mask: Tensor | None = None  # (n or 1, h, w) in pixels, where the clip may change; instead of the words' own
    null_text: FittedNullText | None = None  # for source "null text"


@dataclass(frozen=True, eq=False)
class SourceClip:
    """What is edited."""

    schedule: Schedule
    trajectory: Sequence[Tensor] | None  # of the inversion, one for every sigma of the schedule
    noise: Tensor  # (n, c, h, w) in the model's scale: the inverted latent itself


class ControlledGuider(comfy.samplers.CFGGuider):
    """For samplings of one inverted latent, by any sampler whose calls lie on the schedule's sigmas."""

    def __init__(self, model: ModelPatcher, spec: UNetSpec, control: Control, clip: SourceClip):
        clone = with_hooks(model, spec)
        clone.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, OURS, _beginning)
        super().__init__(clone)
        self.control, self.clip = control, clip

    @property
    def null_text(self) -> FittedNullText | None:
        """Where it is the source's."""
        return self.control.null_text if self.control.options.source == "null text" else None

    def set_conds(self, positive: list, negative: list) -> None:
        """The source is seen with all that the edit is, but for the words. Raises EI2Error for parts of a picture."""
        check_whole(positive, "positive", ("an area", "a timestep range", "a strength of 0"))
        check_whole(negative, "negative", ("an area",))
        caption = [[text, {**positive[0][1], **own}] for text, own in self.control.edit.caption]
        self.inner_set_conds({"positive": positive, "negative": negative, "caption": caption})

    def begin(self, x: Tensor, sigmas: Tensor, extra_args: dict) -> Tensor:
        """x, (n, c, h, w) in the model's scale, that a sampling starts from -> what it shall start from."""
        options, schedule = self.control.options, self.clip.schedule
        self.sigmas, size = schedule.sigmas, tuple(x.shape[-2:])
        self.wanted: tuple[int, Tensor] | None = None  # where the last blend should have led
        self.source = AlongInversion(self.clip.trajectory)
        if options.source != "along the inversion":
            self.source = OwnPrediction(x, self._place(sigmas), schedule)
        self.blend = self.mask = None
        if self.control.mask is not None:
            self.mask = comfy.sampler_helpers.prepare_mask(self.control.mask, x.shape, x.device)
        elif options.blend_threshold:
            threshold, dilation = options.blend_threshold, options.dilation
            self.blend = LocalBlend(len(x), size, threshold, dilation, levels(self.model_patcher))
        if not options.noise_share:
            return x
        number = self._number(self._place(sigmas))
        if number > 0:
            warn(
                "The old shape may stay: its noise is renewed only where sampling begins at the noise itself, and this "
                f"one begins after {number / schedule.steps:.0%} of the way. Set strength to 1."
            )
            return x
        mask = self._seen(x, extra_args)
        noise = moving_noise(mask.cpu(), x.shape[1], torch.Generator().manual_seed(extra_args["seed"] or 0))
        return renew(x, mask, noise, self.clip.schedule.sigma_end, options.noise_share)

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        place = self._place(timestep)
        step = self._step(place, x)
        if step.needs_source or (self.mask is not None and self.source.sampled):
            self._pass_over_source(step, place, x, timestep, model_options)
            model_options = carrying(model_options, Editing(step))
        given = self.conds
        if self.null_text is not None and not self.null_text.decoupled:
            self.conds = {**given, "negative": self.null_text.conds_at(given["negative"], timestep[0])}
        try:
            denoised = super().predict_noise(x, timestep, model_options, seed)
        finally:
            self.conds = given
        return self._blended(denoised, x, place)

    def _pass_over_source(self, step: Step, place: int, x: Tensor, timestep: Tensor, model_options: dict) -> None:
        source = self.source.at(place).to(x)

        def predicted(conds: list[dict], options: dict) -> Tensor:
            return comfy.samplers.calc_cond_batch(self.inner_model, [conds], source, timestep, options)[0]

        denoised = predicted(self.conds["caption"], carrying(model_options, Recording(step)))
        if self.null_text is not None:
            without = predicted(self.null_text.conds_at(self.conds["negative"], timestep[0]), model_options)
            denoised = without + self.null_text.cfg * (denoised - without)
        self.source.predicted(place, denoised)

    def _blended(self, denoised: Tensor, x: Tensor, place: int) -> Tensor:
        """The x0 whose DDIM step ends in the source's latents outside the words of the edit, or outside the mask."""
        self._refuse_strayed(x, place)
        start = self.control.options.steps_of("blend_start", self.clip.schedule.steps)
        if place == 0 or self._number(place) < start or self.blend is self.mask is None:
            return denoised
        sigma, below = (self.sigmas[i].to(x) for i in (place, place - 1))
        edited, source = ddim_step(x, denoised, sigma, below), self.source.at(place - 1).to(x)
        wanted = source + self.mask * (edited - source) if self.blend is None else self.blend(edited, source)
        self.wanted = place - 1, wanted
        return (sigma * wanted - below * x) / (sigma - below)

    def _refuse_strayed(self, x: Tensor, place: int) -> None:
        """What is blended is made for a DDIM step: from x0s of several steps, ever more is made up for."""
        expected, wanted = self.wanted or (None, x)
        off = float((x - wanted).norm() / wanted.norm()) if place == expected else 0.0
        if off > STRAYED:
            raise EI2Error(
                "The sampler strays from the clip under a mask or a local blend: at sigma "
                f"{float(self.sigmas[place]):.2f} its latents are off by {off:.1f} times their own size. Take euler, "
                "ddim, heun, dpmpp_2m or EI² DDIM Sampler, or a kind without a blend (style) and no mask."
            )

    def _seen(self, x: Tensor, extra_args: dict) -> Tensor:
        """(n, 1, h, w), 1 where words of the caption are seen in the source, by a look at a few of its steps."""
        tokens, schedule, options = self.control.edit.blend.source, self.clip.schedule, self.control.options
        if not tokens:
            raise EI2Error(
                "This kind of edit asks where the old word is seen in the clip, and no word of the caption is "
                "replaced. Name the word under blend words of Prompt Edit, or choose another kind of edit."
            )
        words = self._word_maps(x)
        looking = carrying(extra_args["model_options"], Looking(words, tokens))
        places, caption = looks(schedule.steps), self.conds["caption"]

        def under_caption(source: Tensor, sigma: Tensor) -> Tensor:
            return comfy.samplers.calc_cond_batch(self.inner_model, [caption], source, sigma, looking)[0]

        look = watched(under_caption, self.sigmas[places])
        with advising(self.inner_model):
            for place in places:
                look(self.clip.trajectory[place].to(x), self.sigmas[place].to(x).expand(len(x)))
        seen = words.relative(pool=False, from_least=True) > options.noise_threshold
        return dilate(seen.float(), options.dilation)

    def _word_maps(self, x: Tensor) -> WordMaps:
        return WordMaps(len(x), tuple(x.shape[-2:]), levels(self.model_patcher))

    def _step(self, place: int, x: Tensor) -> Step:
        edit, options = self.control.edit, self.control.options
        fuses = options.fuse_threshold and edit.blend.source  # without a word all of it is the source's
        fusing = self._word_maps(x) if fuses else None
        size = tuple(x.shape[-2:])
        return Step(edit, options, self._number(place), self.clip.schedule.steps, size, self.blend, fusing)

    def _number(self, place: int) -> int:
        """Of the step that starts there, 0 for the first."""
        return self.clip.schedule.steps - place

    def _place(self, sigma: Tensor) -> int:
        """In the schedule, of the first of these sigmas."""
        return place_of(float(sigma[0]), self.sigmas)


def levels(model: ModelPatcher) -> tuple[float, float]:
    """Sides of the maps that show words, as shares of the latent's: a quarter where the UNet has so many levels (the
    published 16x16 of 64x64), and the finest of the miniature model."""
    deep = len(model.model.diffusion_model.num_res_blocks) > 2
    return (0.25, 0.25) if deep else (1.0, 1.0)


def _beginning(executor, guider, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
    """Around a sampler of the host."""
    check_start(latent_image, noise, sigmas, guider.clip.noise, guider.clip.schedule)
    latent_image = guider.begin(latent_image, sigmas, extra_args)
    return executor(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)
