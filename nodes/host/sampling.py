"""Inversion and sampling through the host's guider, so that ControlNet, LoRA and previews work as usual."""

from collections.abc import Callable

import comfy.samplers
import torch

from ...ei2_modules.inversion import Convergence, invert_ddim
from ...ei2_modules.sampling import sample_ddim
from ...ei2_modules.schedule import Schedule


def invert(model, samples, positive, schedule: Schedule, iterations: int, callback: Callable):
    """Clean latents -> (noise at schedule.sigma_end, Convergence), both in the LATENT scale of the host."""
    convergence = Convergence(iterations)
    options = {"iterations": iterations, "convergence": convergence}
    sampler = comfy.samplers.KSAMPLER(invert_ddim, extra_options=options)
    guider = _guider(model, positive, positive, cfg=1.0)
    return _run(guider, sampler, samples, schedule.sigmas, callback), convergence


def sample(model, samples, positive, negative, cfg: float, schedule: Schedule, eta: float, seed: int, callback):
    """Inverted noise -> clean latents."""
    guider = _guider(model, positive, negative, cfg)
    return _run(guider, ddim_sampler(eta, seed), samples, schedule.descending, callback, seed)


def ddim_sampler(eta: float, seed: int):
    """Published DDIM as a host SAMPLER. For eta 0 the seed plays no part."""

    def run(model, x, sigmas, extra_args=None, callback=None, disable=None):
        generator = torch.Generator().manual_seed(seed)
        return sample_ddim(model, x, sigmas, extra_args, callback, disable, eta=eta, generator=generator)

    return comfy.samplers.KSAMPLER(run)


def _guider(model, positive, negative, cfg: float):
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    return guider


def _run(guider, sampler, samples, sigmas, callback, seed: int = 0):
    noise = torch.zeros_like(samples)  # nothing is added: the latent already is what the sampler starts from
    return guider.sample(noise, samples, sampler, sigmas, callback=callback, disable_pbar=True, seed=seed).cpu()
