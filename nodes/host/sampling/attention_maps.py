"""Looking at a clip along its inversion, word by word, and what is found there."""

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..control.guider import levels
from ..control.hooks import carrying, with_hooks
from ..control.looking import LOOKS, LookingEverywhere, looks, relative
from ..progress import Progress
from .inverted import Inverted

PASSES = LOOKS
SHOWN = 3  # blocks that the report names for a word


def look(
    model: ModelPatcher, spec: UNetSpec, positive: list, start: Inverted, looking: LookingEverywhere, progress: Progress
) -> None:
    """Passes at a few sigmas of the inversion. Raises EI2Error for a latent without its record."""
    if start.trajectory is None:
        raise EI2Error(
            "Attention Maps needs the latents that the clip was inverted through, and this latent has none for all of "
            "its frames (Save Latent drops them). Wire the latent of DDIM Invert Video."
        )

    def run(denoise, x, sigmas, extra_args=None, callback=None, disable=None):
        options = carrying(extra_args["model_options"], looking)
        for place in looks(start.schedule.steps):
            source, sigma = start.trajectory[place].to(x), start.schedule.sigmas[place].to(x)
            progress.advance(denoise(source, sigma.expand(len(x)), **extra_args | {"model_options": options}))
        return x

    guider = comfy.samplers.CFGGuider(with_hooks(model, spec))
    guider.set_conds(positive, positive)
    guider.set_cfg(1.0)
    sampler, noise = comfy.samplers.KSAMPLER(run), torch.zeros_like(start.samples)
    guider.sample(noise, start.samples, sampler, start.schedule.descending, disable_pbar=True)


def mask(model: ModelPatcher, found: LookingEverywhere, size: tuple[int, int], threshold: float) -> Tensor:
    """MASK (n, h, w) of `size`: words together, from the blocks that a local blend goes by."""
    least, most = levels(model)
    shares = {block: (found.size(block)[0] / size[0]) for block in found.blocks()}
    chosen = [block for block, share in shares.items() if least * 0.8 <= share <= most * 1.2]
    seen = sum(found.seen(block, word, size) for block in chosen or found.blocks() for word in found.words)
    return (relative(seen) > threshold).float().cpu()


def report(found: LookingEverywhere) -> str:
    """For every word the blocks that see it most sharply."""
    lines = [f"{found.frames} frames, {len(found.blocks())} blocks; greatest value of a map over its mean:"]
    for word in found.words:
        sharp = sorted(((found.sharpness(block, word), block) for block in found.blocks()), reverse=True)
        lines.append(f"{word}: " + ", ".join(f"{block} {value:.1f}" for value, block in sharp[:SHOWN]))
    return "\n".join(lines)
