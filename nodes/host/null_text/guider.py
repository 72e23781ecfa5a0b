"""What the fit of a null text asks the host's guider: a pass under the caption, and one under an embedding."""

from collections.abc import Callable

import comfy.model_management as mm
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.diffusion.finite import watched
from ....ei2_modules.diffusion.sampling import sample_ddim
from ....ei2_modules.diffusion.schedule import Schedule
from ....ei2_modules.tuning.own_copy import own_copy
from .. import conditioning
from ..control.null_text import with_embedding
from ..tuning.guider import Body


class NullTextGuider(comfy.samplers.CFGGuider):
    """Made outside inference mode. Everything but `run` works only within it."""

    def __init__(self, clone: ModelPatcher, positive: list, negative: list, schedule: Schedule):
        super().__init__(clone)
        texts = {"positive": positive, "negative": negative}
        self.inner_set_conds({name: conditioning.out_of_inference_mode(text) for name, text in texts.items()})
        self.descending = own_copy(schedule.descending)
        self.shown: Tensor | None = None  # x0 under the caption, of the last step
        self.asked = watched(self._asked, self.descending[:-1])

    def run(self, samples: Tensor, body: Callable[[], None]) -> None:
        """samples: of the inverted LATENT, (n, c, h, w): the host prepares conditioning and windows for its frames."""
        samples = own_copy(samples)
        nothing = torch.zeros_like(samples)
        self.sample(nothing, samples, Body(self, lambda _: body()), self.descending, disable_pbar=True)

    @property
    def empty(self) -> Tensor:
        """The embedding of the negative, (1, tokens, d)."""
        return self.conds["negative"][0]["model_conds"]["c_crossattn"].cond

    def under_caption(self, x: Tensor, sigma: Tensor) -> Tensor:
        """x0 of all frames."""
        self.shown = self.asked(x, sigma, conds=self.conds["positive"])
        return self.shown

    def under(self, x: Tensor, sigma: Tensor, embedding: Tensor) -> Tensor:
        """x0 of all frames, differentiable in the embedding, (1 or n, tokens, d)."""
        conds = conditioning.without_gradients(with_embedding(self.conds["negative"], embedding))
        return self.asked(x, sigma, conds=conds)

    def sampled(
        self, noise: Tensor, cfg: float, at: Callable[[Tensor], Tensor], callback: Callable[[dict], None]
    ) -> Tensor:
        """Guided DDIM from noise in the model's scale to the clip, with the negative that `at` gives for a sigma."""

        def guided(x: Tensor, sigma: Tensor) -> Tensor:
            uncond = self.under(x, sigma, at(sigma[0]))
            return uncond + cfg * (self.under_caption(x, sigma) - uncond)

        return sample_ddim(guided, noise.to(self.empty), self.descending.to(self.empty), callback=callback)

    def _asked(self, x: Tensor, sigma: Tensor, conds: list[dict]) -> Tensor:
        mm.throw_exception_if_processing_interrupted()
        options = self.extra_args["model_options"]
        (denoised,) = comfy.samplers.calc_cond_batch(self.inner_model, [conds], x, sigma, options)
        return denoised
