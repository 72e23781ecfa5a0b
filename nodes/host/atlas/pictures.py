"""IMAGE and MASK of an atlas."""

import torch
from torch import Tensor

from ....ei2_modules.atlas.atlas import CHANGED, Atlas
from ....ei2_modules.atlas.checks import checked_clip
from ....ei2_modules.atlas.gates import coverage, layer_name, stretch
from ....ei2_modules.errors import EI2Error
from ..images import frames_of, image_of

LAYERS = ("foreground", "background", "foreground 2")  # as nodes name them
TINTS = (1.0, 0.45, 0.35), (0.45, 0.6, 1.0)  # of squares on foregrounds, and on the background


def clip_for(atlas: Atlas, images: Tensor) -> Tensor:
    """(n, 3, h, w) of an IMAGE, if it is the clip that an atlas was fitted to. Raises EI2Error."""
    return checked_clip(frames_of(images, "images").cpu(), (atlas.frames, *atlas.size), atlas.clip)


def clip_of(atlas: Atlas) -> Tensor:
    """IMAGE: every frame, drawn from the layers."""
    return image_of(torch.cat([atlas.render(frames) for frames in atlas.chunks()]))


def picture_of(atlas: Atlas, layer: int) -> Tensor:
    """IMAGE of one frame: a layer's picture, filled where no frame shows it."""
    return image_of(atlas.layers[layer].texture[None])


def alpha_of(atlas: Atlas) -> Tensor:
    """MASK: the foremost layer's alpha in every frame."""
    return torch.cat([atlas.alpha(frames, 0) for frames in atlas.chunks()])[:, 0]


def shown_of(atlas: Atlas) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a node shows of an atlas that it has made: clip, foreground's and background's picture, alpha."""
    return clip_of(atlas), picture_of(atlas, 0), picture_of(atlas, -1), alpha_of(atlas)


def seen_of(atlas: Atlas, frames: list[int], layer: int) -> Tensor:
    """MASK: where some frames show a layer."""
    return torch.cat([atlas.seen([t])[layer] for t in frames])[:, 0]


def index_of(atlas: Atlas, name: str) -> int:
    """Of a layer by the name that nodes give it. Raises EI2Error for one that is not there."""
    names = [layer_name(atlas, k).replace("foreground 1", "foreground") for k in range(len(atlas.layers))]
    if len(names) == 1:
        return 0  # it is both
    if name not in names:
        raise EI2Error(f"This atlas has no layer {name!r}: it has {', '.join(names)}.")
    return names.index(name)


def replaced(atlas: Atlas, index: int, picture: Tensor, mask: Tensor | None) -> Atlas:
    """Another atlas with a picture (3, rows, columns) of any size; mask (rows, columns), None for all that differs."""
    layer = atlas.layers[index]
    if mask is None:
        own = layer.replaced(picture).texture
        mask = ((own - layer.texture).abs().amax(0) > CHANGED).float()
    return atlas.with_layer(index, layer.replaced(picture, mask))


def edited_clip(atlas: Atlas, frames: Tensor) -> Tensor:
    """IMAGE: the clip (n, 3, h, w) with what was edited."""
    return image_of(torch.cat([atlas.over(frames[some], some) for some in atlas.chunks()]))


def checkerboard(atlas: Atlas, squares: int) -> Tensor:
    """IMAGE: the clip's grey, with squares that lie on the layers."""
    drawn = []
    for frames in atlas.chunks():
        grey, parts = atlas.render(frames).mean(1, keepdim=True), 0
        for k, seen in enumerate(atlas.seen(frames)):
            uv = atlas.maps(frames, k) * squares / 2
            dark = uv.floor().sum(-1).remainder(2)[:, None]
            tint = torch.tensor(TINTS[min(k, 1)] if len(atlas.layers) > 1 else TINTS[1]).view(1, 3, 1, 1)
            parts = parts + seen * (1 - 0.6 * dark) * tint
        drawn.append(0.4 * grey + 0.6 * parts)
    return image_of(torch.cat(drawn))


def about(atlas: Atlas) -> str:
    """In words."""
    h, w = atlas.size
    lines = [f"{atlas.frames} frames of {w}x{h}, {len(atlas.layers)} layers, from front to back:"]
    for k, layer in enumerate(atlas.layers):
        values = stretch(atlas, k)
        bend = f"{values.median().item():.2f}" if len(values) else "not seen"
        lines.append(
            f"{layer_name(atlas, k)}: {layer.box.columns}x{layer.box.rows} texels, {coverage(atlas, k):.0%} seen by "
            f"some frame, stretch {bend}"
            + ("" if layer.edited is None else f", {layer.edited.mean().item():.0%} edited")
        )
    return "\n".join(lines)
