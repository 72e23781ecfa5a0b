"""Looking at a clip along its inversion, word by word, and what is found there."""

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.attention.control.blend import WordMaps
from ....ei2_modules.diffusion.finite import watched
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..control.guider import levels
from ..control.hooks import carrying, with_hooks
from ..control.looking import LookingEverywhere, looks
from ..not_finite import advising
from ..progress import Progress
from .inverted import Inverted

SHOWN = 3  # blocks that the report names for a word


def look(model: ModelPatcher, spec: UNetSpec, positive: list, start: Inverted, looking: LookingEverywhere) -> None:
    """Passes at a few sigmas of the inversion. Raises EI2Error for a latent without its record."""
    if start.trajectory is None:
        raise EI2Error(
            "Attention Maps needs the latents that the clip was inverted through, and this latent has none for all of "
            "its frames (Save Latent drops them). Wire the latent of DDIM Invert Video."
        )

    places = looks(start.schedule.steps)
    progress = Progress(model, len(places))

    def run(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
        options = carrying(extra_args["model_options"], looking)
        denoise = watched(denoise, start.schedule.sigmas[places])
        for place in places:
            source, sigma = start.trajectory[place].to(x), start.schedule.sigmas[place].to(x)
            with advising(model.model):
                shown = denoise(source, sigma.expand(len(x)), **extra_args | {"model_options": options})
            progress.advance(shown)
        return x

    guider = comfy.samplers.CFGGuider(with_hooks(model, spec))
    guider.set_conds(positive, positive)
    guider.set_cfg(1.0)
    sampler, noise = comfy.samplers.KSAMPLER(run), torch.zeros_like(start.samples)
    guider.sample(noise, start.samples, sampler, start.schedule.descending, disable_pbar=True)


def mask(model: ModelPatcher, found: LookingEverywhere, size: tuple[int, int], threshold: float) -> Tensor:
    """MASK (n, h, w) of `size`: words together, from the blocks that a local blend goes by."""
    words = WordMaps(found.frames, size, levels(model))
    for maps in found.sums.values():
        words.add(maps.flatten(1), tuple(maps.shape[-2:]))
    return (words.relative(pool=False, from_least=True)[:, 0] > threshold).float().cpu()


def report(found: LookingEverywhere) -> str:
    """For every word the blocks that see it most sharply."""
    lines = [f"{found.frames} frames, {len(found.blocks())} blocks; greatest value of a map over its mean:"]
    for word in found.words:
        sharp = sorted(((found.sharpness(block, word), block) for block in found.blocks()), reverse=True)
        lines.append(f"{word}: " + ", ".join(f"{block} {value:.1f}" for value, block in sharp[:SHOWN]))
    return "\n".join(lines)
