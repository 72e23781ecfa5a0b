"""How close an atlas comes to the scene it was fitted to."""

import torch
from torch import Tensor

from ei2_modules.atlas.maps import Maps, half, pixels, to_sampling
from ei2_modules.atlas.texture import sample_picture

from .scenes import Scene

POINTS = 400  # of a pair of frames, at most


def map_errors(scene: Scene, alphas: Tensor, maps: Maps, layer: int) -> tuple[Tensor, Tensor]:
    """(px of all points between neighbours, px from the middle frame to all others).

    A point of frame a is where the truth says in frame b; the error is how far from there the maps find it. Over points
    of the layer that both frames show.
    """
    near = [(t, t + 1) for t in range(scene.frames - 1)]
    far = [(scene.middle, t) for t in range(scene.frames) if t != scene.middle]
    return tuple(torch.cat([_between(scene, alphas, maps, layer, a, b) for a, b in pairs]) for pairs in (near, far))


def _between(scene: Scene, alphas: Tensor, maps: Maps, layer: int, a: int, b: int) -> Tensor:
    own = alphas > 0.95 if layer == 0 else alphas < 0.05
    points = pixels(scene.size, torch.zeros((), dtype=torch.float64))[own[a, 0]]
    points = points[:: max(1, len(points) // POINTS)]
    ends = scene.to_picture(b, scene.to_layer(a, points, layer), layer)
    place = to_sampling(ends, scene.size).float()
    shown = sample_picture(own[b : b + 1].float(), place[None, None])[0, 0, 0] > 0.99
    shown &= (place.abs() < 1 - 1 / half(scene.size)).all(1)
    points, ends = points[shown].float()[None], ends[shown].float()[None]
    gap = maps[[b]].at(ends, scene.size) - maps[[a]].at(points, scene.size)
    shift = torch.linalg.solve(maps[[b]].jacobian(ends, scene.size), gap[..., None])
    return shift[0, :, :, 0].norm(dim=1) * half(scene.size)


def alpha_iou(a: Tensor, b: Tensor) -> float:
    """What two alphas have in common, of what either covers."""
    a, b = a > 0.5, b > 0.5
    return ((a & b).sum() / (a | b).sum()).item()


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over frames, dB."""
    return (-10 * (a - b).square().mean((1, 2, 3)).log10()).mean().item()
