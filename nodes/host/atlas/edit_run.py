"""The edit of key frames inside the host (StableVideo, section 3.3): one after the other, each from the one before."""

import math
from dataclasses import dataclass

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.atlas.crops import Crops
from ....ei2_modules.atlas.key_frames import KeyFrames
from ....ei2_modules.atlas.propagate import propagated
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.inflation.unet_spec import UNetSpec
from .. import conditioning, plots
from ..attempt import attempt
from ..images import frames_of, image_of
from ..inflating.keys import OURS
from ..inflating.unet import describe
from ..latents import clip_latents, pixels
from ..progress import Progress, say, show_text, to_pil
from . import folder
from .structure import Structure

PROPAGATED, SEQUENTIAL, SAME_NOISE, INDEPENDENT, JOINT = WAYS = (
    "inter-frame propagation",
    "sequential image to image",
    "same noise",
    "independent",
    "jointly by EI²",
)
FROM_NOISE, FROM_SOURCE = STARTS = ("noise", "source")
SAMPLER, SCHEDULER = "ddim", "ddim_uniform"
UNFINISHED = "unfinished_key_frame"


@dataclass(frozen=True)
class EditOptions:
    """Published: 20 steps, guidance 9, the later key frames noised to 0.8 of the schedule."""

    way: str
    start: str
    seed: int
    steps: int
    cfg: float
    denoise: float
    short_side: int

    def denoising(self, steps: int) -> int:
        """Of so many steps, those of a key frame that begins with a picture."""
        return int(steps * self.denoise + 1e-9)


@dataclass(frozen=True)
class EditJob:
    """What is asked for, checked."""

    model: ModelPatcher
    positive: list
    negative: list
    vae: VAE
    atlas: Atlas
    keys: KeyFrames
    frames: Tensor  # (k, 3, h, w), the key frames alone
    options: EditOptions
    structure: Structure | None = None

    def __post_init__(self):
        options = self.options
        spec = describe(self.model)
        check_model(self.model, spec, options.way)
        conditioning.check(self.positive, "positive", spec)
        conditioning.check(self.negative, "negative", spec)
        if options.denoising(options.steps) < 1:
            least = math.ceil(100 / options.steps) / 100  # rounded up, or it would not be enough
            raise EI2Error(
                f"denoise {options.denoise:g} of {options.steps} steps is less than one step. Take at least {least:g}, "
                "or more steps."
            )


def check_model(model: ModelPatcher, spec: UNetSpec, way: str) -> None:
    """Raises EI2Error for a model that this way cannot use."""
    channels = model.model.diffusion_model.in_channels
    if channels != spec.channels:
        raise EI2Error(
            f"This is an inpainting model, or another that sees a picture besides the latents ({channels} channels for "
            f"{spec.channels}), and key frames are painted whole. Load the checkpoint it was made from."
        )
    inflated = model.get_attachment(OURS) is not None
    if inflated and way != JOINT:
        raise EI2Error(
            f"This model is inflated by EI² and sees all frames at once; the way {way!r} edits one at a time. Choose "
            f"{JOINT!r}, or wire the model from before Inflate UNet to EI²."
        )
    if not inflated and way == JOINT:
        raise EI2Error(f"The way {JOINT!r} needs a model that went through Inflate UNet to EI². Put that node before.")


class EditRun:
    """One edit, its progress, and what is left of it when it is stopped."""

    def __init__(self, job: EditJob):
        self.job, self.done = job, []  # of `done`: (3, h, w), whole frames in the order of the key frames
        k = len(job.keys.frames)
        self.seen = torch.cat([job.atlas.seen([t])[job.keys.layer] for t in job.keys.frames])
        self.crops = Crops.around(self.seen, job.options.short_side)
        self.sources = torch.cat([self.crops.cut(i, self._alone(i, frame)) for i, frame in enumerate(job.frames)])
        sampling = job.model.get_model_object("model_sampling")
        self.sigmas = comfy.samplers.calculate_sigmas(sampling, SCHEDULER, job.options.steps)
        groups = [list(range(k))] if job.options.way == JOINT else [[i] for i in range(k)]
        self.groups = [(group, self._sigmas(group)) for group in groups]
        self.progress = Progress(job.model, sum(len(sigmas) - 1 for _, sigmas in self.groups))

    def execute(self) -> tuple[Tensor, str]:
        """(IMAGE of the edited key frames, in the clip's size; report)."""
        try:
            for group, sigmas in self.groups:
                self._edit(group, sigmas)
        except BaseException:
            self._keep()
            raise
        text = self._report()
        show_text(text.partition("\n")[0])
        return image_of(torch.stack(self.done)), text

    def _begins_with_picture(self, i: int) -> bool:
        later = i > 0 and self.job.options.way in (PROPAGATED, SEQUENTIAL)
        return later or self.job.options.start == FROM_SOURCE

    def _sigmas(self, group: list[int]) -> Tensor:
        """The last of them from a picture: noise is added as the first step expects it."""
        count = self.job.options.denoising(len(self.sigmas) - 1)
        return self.sigmas[-count - 1 :] if self._begins_with_picture(group[0]) else self.sigmas

    def _edit(self, group: list[int], sigmas: Tensor) -> None:
        job, options = self.job, self.job.options
        latent = self._encoded(self._pictures(group))
        if not self._begins_with_picture(group[0]):
            latent = torch.zeros_like(latent)
        seed = (options.seed + (group[0] if options.way != SAME_NOISE else 0)) % 2**64
        conds = job.positive, job.negative
        if job.structure:
            conds = job.structure.on(conds, self.sources[group], job.vae)
        sampler = comfy.samplers.sampler_object(SAMPLER)
        noise = comfy.sample.prepare_noise(latent, seed)
        sampled = comfy.sample.sample_custom(
            job.model, noise, options.cfg, sampler, sigmas, *conds, latent,
            callback=self.progress.callback(), disable_pbar=True, seed=seed,
        )  # fmt: skip
        for i, picture in zip(group, frames_of(pixels(job.vae, sampled), "what the VAE gives"), strict=True):
            self.done.append(self._whole(i, picture[None]))
        self._show()

    def _pictures(self, group: list[int]) -> Tensor:
        """(m, 3, *edited): what these key frames begin with."""
        i, way, keys = group[0], self.job.options.way, self.job.keys
        if i == 0 or way not in (PROPAGATED, SEQUENTIAL):
            return self.sources[group]
        if way == SEQUENTIAL:
            return self.crops.cut(i - 1, self._alone(i - 1, self.done[-1]))
        mapped = propagated(self.job.atlas, keys.layer, keys.frames[i - 1], self.done[-1], keys.frames[i])
        return self.crops.cut(i, self._alone(i, mapped))

    def _alone(self, i: int, frame: Tensor) -> Tensor:
        """(3, h, w) without what is before the layer or behind it: black, as published, or the background's picture."""
        atlas, layer = self.job.atlas, self.job.keys.layer
        last = layer == len(atlas.layers) - 1
        rest = atlas.sample([self.job.keys.frames[i]], layer)[0] if last else torch.zeros_like(frame)
        return torch.lerp(rest, frame, self.seen[i])

    def _whole(self, i: int, crop: Tensor) -> Tensor:
        """(3, h, w): a key frame of the clip with its edited layer."""
        source = self.job.frames[i]
        return torch.lerp(source, self.crops.pasted(i, source, crop), self.seen[i])

    def _encoded(self, pictures: Tensor) -> Tensor:
        return clip_latents({"samples": self.job.vae.encode(image_of(pictures))}, describe(self.job.model)).cpu()

    def _show(self) -> None:
        named = dict(zip((f"frame {t}" for t in self.job.keys.frames), self.done, strict=False))
        parts = {name: to_pil(frame.movedim(0, -1)) for name, frame in list(named.items())[-4:]}
        picture, _ = attempt("The picture of the key frames is left out", plots.beside, parts)
        self.progress.advance(image=picture, passes=0)

    def _keep(self) -> None:
        """What a stopped edit has come to, as pictures for Load Image."""
        if not self.done:
            return
        frames = self.job.keys.frames
        names, why = attempt(
            "The edited key frames could not be kept",
            lambda: [folder.save_picture(frame, UNFINISHED) for frame in self.done],
        )
        say(
            why
            or f"{len(self.done)} of {len(frames)} key frames were done: {', '.join(names)} in output/{folder.FOLDER}. "
            f"To go on with them, name their frames in Atlas Key Frames: {', '.join(map(str, frames[: len(names)]))}."
        )

    def _report(self) -> str:
        options, (h, w) = self.job.options, self.crops.edited
        frames = ", ".join(map(str, self.job.keys.frames))
        lines = [f"key frames {frames} edited at {w}x{h}: {options.way}, the first from {options.start}"]
        lines += [
            f"frame{'s' * (len(group) > 1)} {', '.join(str(self.job.keys.frames[i]) for i in group)}: "
            f"{len(sigmas) - 1} steps from sigma {sigmas[0]:.3g}"
            for group, sigmas in self.groups
        ]
        return "\n".join(lines)
