"""How close an atlas comes to the scene it was fitted to."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ei2_modules.atlas.atlas import Atlas
from ei2_modules.atlas.maps import Maps, half, pixels, to_sampling
from ei2_modules.atlas.texture import Box, sample_picture

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


def mark_drift(scene: Scene, alphas: Tensor, atlas: Atlas, marks: int = 12) -> float:
    """Mean px of round marks painted on the object's picture: where their middle is drawn, against where it belongs."""
    own = -F.max_pool2d(-(alphas[scene.middle] > 0.95).float()[None], 9, 1, 4)[0, 0] > 0.5
    points = pixels(scene.size, torch.zeros((), dtype=torch.float64))[own]
    points = points[:: max(1, len(points) // marks)]
    layer, unit = atlas.layers[0], half(scene.size)
    centres = layer.maps[[scene.middle]].at(points.float()[None], scene.size)[0]
    grid = _texels(layer.box)
    mark = torch.exp(-((grid[None] - centres[:, None, None]) * unit).square().sum(-1) / 12.5)  # sigma 2.5 px
    where, drifts = pixels(scene.size, torch.zeros(())), []
    for t in range(scene.frames):
        drawn = atlas.sample([t], 0, mark)[0]
        found = (drawn[..., None] * where).sum((1, 2)) / drawn.sum((1, 2)).clamp(min=1e-6)[:, None]
        true = scene.to_picture(t, scene.to_layer(scene.middle, points, 0), 0).float()
        inside = to_sampling(true, scene.size).abs().amax(1) < 1 - 9 / min(scene.size)
        drifts.append(((found - true).norm(dim=1) * unit)[inside])
    return torch.cat(drifts).mean().item()


def _texels(box: Box) -> Tensor:
    """(rows, columns, 2): where the middles of a picture's texels lie."""
    x = box.left + (torch.arange(box.columns) + 0.5) * (box.right - box.left) / box.columns
    y = box.top + (torch.arange(box.rows) + 0.5) * (box.bottom - box.top) / box.rows
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def alpha_iou(a: Tensor, b: Tensor) -> float:
    """What two alphas have in common, of what either covers."""
    a, b = a > 0.5, b > 0.5
    return ((a & b).sum() / (a | b).sum()).item()


def psnr(a: Tensor, b: Tensor) -> float:
    """Mean over frames, dB."""
    return (-10 * (a - b).square().mean((1, 2, 3)).log10()).mean().item()
