"""Inversion and sampling through the host's guider, so that ControlNet, LoRA and previews work as usual."""

from collections.abc import Callable
from dataclasses import replace

import comfy.sampler_helpers
import comfy.samplers
import torch
from comfy.model_base import BaseModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.diffusion.finite import watched
from ....ei2_modules.diffusion.inversion import Convergence, invert_ddim
from ....ei2_modules.diffusion.masked_edit import SourceOutsideMask
from ....ei2_modules.diffusion.sampling import sample_ddim
from ....ei2_modules.diffusion.schedule import Schedule
from ..not_finite import advising
from .trajectory import Trajectory


def invert(
    model: ModelPatcher,
    samples: Tensor,
    positive: list,
    schedule: Schedule,
    iterations: int,
    callback: Callable,
    trajectory: Trajectory | None = None,
) -> tuple[Tensor, Convergence]:
    """Clean latents -> (noise at schedule.sigma_end, Convergence), both in the LATENT scale of the host.

    Raises EI2Error at the first value that is not finite. trajectory: a new one, to be filled.
    """
    convergence = Convergence(iterations)
    options = {"iterations": iterations, "convergence": convergence, "trajectory": trajectory}

    def run(model, x, sigmas, *args, **kwargs):
        with advising(_base(model)):
            return invert_ddim(watched(model, sigmas[1:]), x, sigmas, *args, **kwargs, **options)

    sampler = comfy.samplers.KSAMPLER(run)
    guider = _prepared(comfy.samplers.CFGGuider(model), positive, positive, cfg=1.0)
    return _run(guider, sampler, samples, schedule.sigmas, callback), convergence


def sample(
    model: ModelPatcher,
    samples: Tensor,
    positive: list,
    negative: list,
    cfg: float,
    schedule: Schedule,
    callback: Callable,
    eta: float = 0.0,
    seed: int = 0,
    kept: SourceOutsideMask | None = None,
    guider: comfy.samplers.CFGGuider | None = None,
) -> Tensor:
    """Inverted noise -> clean latents. Raises EI2Error at the first value that is not finite.

    guider: another than the host's own, which holds the model then.
    """
    guider = _prepared(guider or comfy.samplers.CFGGuider(model), positive, negative, cfg)
    return _run(guider, ddim_sampler(eta, seed, kept), samples, schedule.descending, callback, seed)


def ddim_sampler(eta: float, seed: int, kept: SourceOutsideMask | None = None) -> comfy.samplers.Sampler:
    """Published DDIM as a host SAMPLER, for a part of the sigmas too. For eta 0 the seed plays no part.

    kept: with a mask of any size.
    """

    def run(model, x, sigmas, extra_args=None, callback=None, disable=None):
        options = {"eta": eta, "generator": torch.Generator().manual_seed(seed)}
        options["leftover"] = float(sigmas[-1]) > float(_base(model).model_sampling.sigma_min)
        if kept is not None:
            options["keep"] = replace(kept, mask=comfy.sampler_helpers.prepare_mask(kept.mask, x.shape, x.device))
        with advising(_base(model)):
            watching = watched(model, sigmas[:-1])
            return sample_ddim(watching, x.float(), sigmas, extra_args, callback, disable, **options)

    return _OwnMask(run)


class _OwnMask(comfy.samplers.KSAMPLER):
    """Without the host's masking: what it takes for the source is the noise that we start from."""

    def sample(
        self, model_wrap, sigmas, extra_args, callback, noise, latent_image=None, denoise_mask=None, disable_pbar=False
    ):
        return super().sample(model_wrap, sigmas, extra_args, callback, noise, latent_image, None, disable_pbar)


def _base(model) -> BaseModel:
    """Behind what the host hands a sampler."""
    return model.inner_model.inner_model


def _prepared(guider: comfy.samplers.CFGGuider, positive, negative, cfg: float) -> comfy.samplers.CFGGuider:
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def _run(guider, sampler, samples, sigmas, callback, seed: int = 0):
    noise = torch.zeros_like(samples)  # nothing is added: the latent already is what the sampler starts from
    return guider.sample(noise, samples, sampler, sigmas, callback=callback, disable_pbar=True, seed=seed).cpu()
