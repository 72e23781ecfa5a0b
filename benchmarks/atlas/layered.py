"""Edits of a clip through its layered atlas by the miniature model, wired as in the template 08_stable_video_demo."""

from math import cos, pi, sin

import torch
import torch.nn.functional as F
from torch import Tensor

from ei2_modules.atlas.aggregate import METHODS
from ei2_modules.atlas.maps import half
from ei2_modules.demo import scenes
from tools.server.in_process import host, pack

from ..common import report

aggregate_atlas, edit_atlas, edit_key_frames, fit_atlas, key_frames = (
    pack(f"nodes.{name}") for name in ("aggregate_atlas", "edit_atlas", "edit_key_frames", "fit_atlas", "key_frames")
)
demo_controlnet, edit_run, structure = (
    pack(f"nodes.host.{name}") for name in ("demo_controlnet", "atlas.edit_run", "atlas.structure")
)
sample = host("comfy.sample")

KEYS, MIDDLE = "0, 4, 7", "4"
DEFAULT, CFG, DENOISE, CANNY = METHODS[0], 5.0, 0.8, (100, 200)
AROUND = 4  # texels of black around the layer's picture, as the window of a key frame has
# Of each method: the way of Edit Key Frames, the key frames, and how they are aggregated.
BY_KEY_FRAMES = {
    **{way: (way, KEYS, DEFAULT) for way in edit_run.WAYS},
    **{f"aggregation by {name}": (edit_run.PROPAGATED, KEYS, name) for name in METHODS if name != DEFAULT},
    "one key frame": (edit_run.PROPAGATED, MIDDLE, DEFAULT),
}
DIRECT = "direct"  # the layer's own picture through the model
LAYERED = (*BY_KEY_FRAMES, DIRECT)


class LayeredEditor:
    """An atlas of a clip, and edits with it. Raises EI2Error for a clip that Fit Video Atlas refuses."""

    def __init__(self, editor, images: Tensor, masks: Tensor, preset: str = "default"):
        """editor: of benchmarks.quality.run. images (n, h, w, 3), masks (n, h, w)."""
        self.editor, self.images, self.net, self.edited = editor, images, demo_controlnet.load(), {}
        began, execute = report.now(), fit_atlas.FitAtlas.execute
        found = execute(images, "affine", preset, 0, len(images), mask=masks, resume="new run").args
        self.atlas, self.picture, self.report = found[0], found[2], found[5]
        self.fit_seconds = report.now() - began

    def edit(self, name: str, prompt: str, seed: int, steps: int) -> tuple[Tensor, float]:
        """(IMAGE, seconds with those of the fit)."""
        began = report.now()
        if name == DIRECT:
            return self.direct(prompt, seed, steps), self.fit_seconds + report.now() - began
        way, frames, aggregation = BY_KEY_FRAMES[name]
        keys = key_frames.AtlasKeyFrames.execute(self.atlas, self.images, "foreground", 3, frames).args[0]
        painted, seconds = self.key_frames(way, keys, prompt, seed, steps)
        began = report.now()
        execute = aggregate_atlas.AggregateAtlas.execute
        atlas = execute(self.atlas, keys, painted, self.images, aggregation).args[0]
        clip = aggregate_atlas.RenderAtlas.execute(atlas, self.images).args[0]
        return clip, self.fit_seconds + seconds + report.now() - began

    def key_frames(self, way: str, keys, prompt: str, seed: int, steps: int) -> tuple[Tensor, float]:
        """(IMAGE, seconds), once for all ways of aggregation."""
        asked = way, keys.frames, prompt, seed, steps
        if asked not in self.edited:
            model = self.editor.inflated("EI² untuned", seed) if way == edit_run.JOINT else self.editor.model
            texts = self.editor.encode(prompt), self.editor.nothing
            began, execute = report.now(), edit_key_frames.EditKeyFrames.execute
            painted = execute(
                model, *texts, self.editor.vae, self.atlas, keys, self.images, way, edit_run.FROM_NOISE, seed, steps,
                CFG, DENOISE, scenes.SIZE, self.net, 1.0, *CANNY,
            ).args[0]  # fmt: skip
            self.edited[asked] = painted, report.now() - began
        return self.edited[asked]

    def direct(self, prompt: str, seed: int, steps: int) -> Tensor:
        """The foreground's picture on black through the same model, ControlNet and steps, and back into the atlas.

        What no frame shows of it is a guess: that is black too, and is not replaced.
        """
        seen = edit_atlas.InspectAtlas.execute(self.atlas, 2).args[1]
        window = squared(self.picture[..., :3].movedim(-1, 1) * seen[:, None])
        small = F.interpolate(window, (scenes.SIZE,) * 2, mode="bilinear", antialias=True)
        painted = self.painted(small, prompt, seed, steps).movedim(-1, 1)
        large = F.interpolate(painted, tuple(window.shape[-2:]), mode="bilinear", antialias=True)
        picture = unsquared(large, self.picture.shape[1:3]).movedim(1, -1)
        execute = edit_atlas.ReplaceAtlas.execute
        return execute(self.atlas, picture, "foreground", self.images, mask=seen).args[1]

    def painted(self, picture: Tensor, prompt: str, seed: int, steps: int) -> Tensor:
        """IMAGE (1, h, w, 3) from noise, with the edges of a picture (1, 3, h, w)."""
        editor = self.editor
        conds = editor.encode(prompt), editor.nothing
        conds = structure.Structure(self.net, 1.0, *CANNY).on(conds, picture, editor.vae)
        latent = torch.zeros_like(editor.vae.encode(picture.movedim(1, -1)))
        sampled = sample.sample(
            editor.model, sample.prepare_noise(latent, seed), steps, CFG, edit_run.SAMPLER, edit_run.SCHEDULER, *conds,
            latent, disable_pbar=True, seed=seed,
        )  # fmt: skip
        return editor.decode(sampled)


def slip(atlas, clip: tuple) -> float:
    """px of the middle frame that marks on the object move in its layer, which should lie still there; the mean."""
    size, side, middle = atlas.size, half(atlas.size), atlas.frames // 2
    marks = [torch.tensor(_marks(scene.things[0])) * 2 - 1 for scene in clip]
    places = [atlas.layers[0].maps[[t]].at(mark[None], size)[0] for t, mark in enumerate(marks)]
    return side * torch.stack([(place - places[middle]).norm(dim=1) for place in places]).mean().item()


def _marks(thing) -> list[tuple[float, float]]:
    """Four, half its radius from its middle and turning with it; widths of the picture."""
    angles = [thing.angle + quarter * pi / 2 for quarter in range(4)]
    return [(thing.x + thing.radius / 2 * cos(angle), thing.y + thing.radius / 2 * sin(angle)) for angle in angles]


def squared(picture: Tensor) -> Tensor:
    """(1, c, h, w) -> in the middle of a black square with a border."""
    h, w = picture.shape[-2:]
    side = max(h, w) + 2 * AROUND
    top, left = (side - h) // 2, (side - w) // 2
    return F.pad(picture, (left, side - w - left, top, side - h - top))


def unsquared(square: Tensor, size: tuple[int, int]) -> Tensor:
    """What `squared` was given, of size (h, w)."""
    (h, w), side = size, square.shape[-1]
    top, left = (side - h) // 2, (side - w) // 2
    return square[..., top : top + h, left : left + w]
