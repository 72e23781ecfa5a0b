"""From a frame into a layer's picture, and from there into another frame.

The released StableVideo interpolates scattered points with Delaunay triangles and leaves black what a frame does not
show; here a frame is splatted, and what it does not show is filled from around it.
"""

import torch
from torch import Tensor

from .atlas import Atlas
from .texture import Splat, fill


def splatted(atlas: Atlas, layer: int, t: int, frame: Tensor) -> tuple[Tensor, Tensor]:
    """(mean (c, rows, columns), cover (rows, columns) in pixels) of frame t on a layer's picture.

    frame: (c, h, w); its first three channels are colours, of which the light is taken off. A pixel weighs by the
    square of how much of the layer it shows, as in the fit.
    """
    light = atlas.light([t])
    colours = frame[:3] if isinstance(light, float) else frame[:3] / light[0].clamp(min=1e-3)
    splat = Splat(len(frame), atlas.layers[layer].box, frame)
    splat.add(torch.cat([colours, frame[3:]]), atlas.seen([t])[layer][0, 0].square(), atlas.maps([t], layer)[0])
    return splat.mean(), splat.cover


def propagated(atlas: Atlas, layer: int, t: int, frame: Tensor, to: int) -> Tensor:
    """(3, h, w): a layer of frame t, (3, h, w), as another frame sees it."""
    picture = fill(*splatted(atlas, layer, t, frame))
    return (atlas.sample([to], layer, picture) * atlas.light([to]))[0].clamp(0, 1)
