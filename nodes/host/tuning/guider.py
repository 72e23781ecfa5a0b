"""What a step of tuning sees: the host's guider, in the middle of a sampling that is ours."""

import contextlib
from collections.abc import Callable, Iterator

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.diffusion.sampling import sample_ddim
from ....ei2_modules.tuning.own_copy import own_copy
from .. import conditioning
from ..conditioning import Texts
from ..inflating.frames import Clip, only_frames
from ..inflating.keys import CLIP

PREVIEW_TIMESTEPS = (0, 175, 350, 525, 700)  # of a quick sample: from so far up, colours and details are open
PREVIEW_STEPS = len(PREVIEW_TIMESTEPS) - 1
PREVIEW_GUIDANCE = 7.5  # when a negative is wired


class TuningGuider(comfy.samplers.CFGGuider):
    """Made outside inference mode. Everything but `run` works only within it."""

    def __init__(self, clone: ModelPatcher, texts: Texts):
        super().__init__(clone)
        self.sigmas = clone.get_model_object("model_sampling").sigmas  # (1000,), rising
        self.has_negative = bool(texts.negative)
        texts = {
            "positive": texts.positive,
            "negative": texts.negative or texts.positive,
            "validation": texts.validation or texts.positive,
        }
        self.inner_set_conds({name: conditioning.out_of_inference_mode(text) for name, text in texts.items()})

    def run(self, samples: Tensor, body: Callable[[Tensor], None]) -> None:
        """The host loads what the texts need and hands body the clip in the model's scale, (n, c, h, w)."""
        self.frames = len(samples)
        sigmas = own_copy(self.sigmas.flip(0))
        self.sample(torch.zeros_like(samples), samples, Body(self, body), sigmas, disable_pbar=True)

    def denoise(self, x: Tensor, sigma: Tensor, frames: range) -> Tensor:
        """x0 of these frames of the clip under their caption alone, differentiable."""
        caption = conditioning.conds_of_frames(self.conds["positive"], frames)
        with self._seeing(frames), self._under(conditioning.without_gradients(caption)):
            return self(x, sigma, **self.extra_args)

    @torch.no_grad()
    def one_pass(self, clean: Tensor) -> None:
        """Over frames of the clip, until the device is done."""
        with self._seeing(range(len(clean))):
            self(clean, self.sigmas[0].expand(len(clean)).to(clean), **self.extra_args).sum().item()

    def quick_sample(self, clean: Tensor, seed: int) -> Tensor:
        """The clip sampled in few steps under the validation text, from noise over it that is always the same."""
        sigmas = self.sigmas[list(PREVIEW_TIMESTEPS)].flip(0).to(clean)
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed)).to(clean)
        guidance = PREVIEW_GUIDANCE if self.has_negative else 1.0
        with self._seeing(range(len(clean))), self._under(self.conds["validation"], guidance):
            return sample_ddim(self, clean + sigmas[0] * noise, sigmas, self.extra_args)

    @contextlib.contextmanager
    def _seeing(self, frames: range) -> Iterator[None]:
        """Calls hold these frames of the clip."""
        model_options = self.extra_args["model_options"]
        options = model_options["transformer_options"]
        options[CLIP] = Clip.of(len(frames), model_options)
        part = len(frames) < self.frames
        with only_frames(options, frames, self.frames) if part else contextlib.nullcontext():
            yield

    @contextlib.contextmanager
    def _under(self, positive: list[dict], cfg: float = 1.0) -> Iterator[None]:
        """With this text, already prepared, in place of the caption."""
        caption, self.conds["positive"] = self.conds["positive"], positive
        self.set_cfg(cfg)
        try:
            yield
        finally:
            self.conds["positive"] = caption
            self.set_cfg(1.0)


class Body(comfy.samplers.Sampler):
    """Stands where the host expects a sampler. A guider takes the options of its calls from it."""

    def __init__(self, guider: comfy.samplers.CFGGuider, body: Callable[[Tensor], None]):
        self.guider, self.body = guider, body

    def sample(self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, *args, **kwargs):
        self.guider.extra_args = extra_args
        self.body(latent_image)
        return latent_image
