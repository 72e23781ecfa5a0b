"""What the quality benchmark measures on an edited clip whose true content is known."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ei2_modules.demo import scenes
from ei2_modules.metrics import figures as metrics
from ei2_modules.motion import optical_flow

from . import scorers

SEEN = 0.7  # of the object must be visible in a frame to say anything about it
MOVES = 0.02  # widths: standard deviation of a track from which on its slope means something
MARGIN = 3  # px around objects that belongs to neither object nor background


class Truth:
    """The edited clip as it should be, and what the scorers can read in it."""

    def __init__(self, source: tuple, target: tuple):
        self.target = target
        self.images, self.masks = scenes.render(list(target))
        _, source_masks = scenes.render(list(source))
        size = self.images.shape[1]
        whole = scenes.render([replace(s, things=s.things[:1], bar=None) for s in target])[1]
        self.seen = self.masks.sum(dim=(1, 2)) >= SEEN * whole.sum(dim=(1, 2))
        self.bars = torch.stack([_bar(scene) for scene in target])
        axis = (torch.arange(size) + 0.5) / size
        places = [(self.masks.sum(dim=down) * axis).sum(dim=1) for down in (1, 2)]
        self.track = torch.stack(places, dim=1) / self.masks.flatten(1).sum(dim=1, keepdim=True).clamp(min=1e-6)
        others = torch.stack([_others(scene) for scene in target])
        touched = torch.maximum(torch.maximum(self.masks, source_masks), others)
        self.outside = torch.nn.functional.max_pool2d(touched[:, None], 2 * MARGIN + 1, 1, MARGIN)[:, 0] < 0.05
        self.inside = self.masks > 0.95
        self.readable = [scorers.right(self.read(image, i), target[i]) for i, image in enumerate(self.images)]

    def read(self, image: Tensor, frame: int):
        """What a frame shows where the object should be."""
        return scorers.read(image, tuple(self.track[frame].tolist()), self.bars[frame])


def _bar(scene) -> Tensor:
    """The pixels of the upright bar."""
    axis = (torch.arange(scenes.SIZE) + 0.5) / scenes.SIZE
    middle = -9.0 if scene.bar is None else scene.bar
    return ((axis - middle).abs() < scenes.BAR_WIDTH / 2 + 1 / scenes.SIZE).expand(scenes.SIZE, -1)


def _others(scene) -> Tensor:
    """What covers the background beside the first thing."""
    parts = [scenes.render([scenes.Scene((thing,), "white")])[1][0] for thing in scene.things[1:]]
    return torch.stack([torch.zeros(scenes.SIZE, scenes.SIZE), *parts]).amax(dim=0)


def measure(images: Tensor, truth: Truth) -> dict[str, float]:
    """All measures of an edited clip, (n, h, w, 3); nan where one says nothing about this clip."""
    readings = [truth.read(image, i) for i, image in enumerate(images)]
    return {
        **_success(readings, truth),
        **_motion(readings, truth),
        "mae": _mean((images - truth.images).abs().mean(dim=-1).flatten()),
        "outside_mae": _mean((images - truth.images).abs().mean(dim=-1)[truth.outside]),
        **_flicker(images, truth),
    }


def _success(readings: list, truth: Truth) -> dict[str, float]:
    """Share of frames with an attribute right, among those where the scorers can read it in the true picture."""
    found = {}
    for name in scorers.ATTRIBUTES:
        frames = [i for i in range(len(readings)) if truth.readable[i][name] and truth.seen[i]]
        right = [scorers.right(readings[i], truth.target[i])[name] for i in frames]
        found[name] = sum(right) / len(right) if right else math.nan
    return found


def _motion(readings: list, truth: Truth) -> dict[str, float]:
    """The object's track against the true one. slope 1: it moves as it should; 0: it stands still."""
    frames = [i for i, reading in enumerate(readings) if truth.seen[i] and not math.isnan(reading.x)]
    if len(frames) < 3:
        return dict.fromkeys(("slope", "correlation", "centroid_px", "static_px"), math.nan)
    found = torch.tensor([[readings[i].x, readings[i].y] for i in frames])
    true = truth.track[frames]
    a, b = found - found.mean(dim=0), true - true.mean(dim=0)
    moves = b.square().sum(dim=1).mean().sqrt() > MOVES
    together = (a * b).sum()
    return {
        "slope": (together / b.square().sum()).item() if moves else math.nan,
        "correlation": (together / (a.norm() * b.norm()).clamp(min=1e-9)).item() if moves else math.nan,
        "centroid_px": scenes.SIZE * (found - true).norm(dim=1).mean().item(),
        "static_px": scenes.SIZE * b.norm(dim=1).mean().item(),  # of an object that stands still in the middle
    }


def _flicker(images: Tensor, truth: Truth) -> dict[str, float]:
    """Warp error with the known motion, and how much the colours of object and background change over the frames."""
    frames = images.permute(0, 3, 1, 2)
    flow = torch.stack([_flow(truth.target[i], truth.target[i - 1], truth.inside[i]) for i in range(1, len(images))])
    seen_before = optical_flow.warp(truth.inside[:-1, None].float(), flow)[:, 0] > 0.95
    still, moved = truth.outside[1:] & truth.outside[:-1], truth.inside[1:] & seen_before
    error = {"warp_outside": still, "warp_object": moved}
    warped = {name: _finite_mean(metrics.warp_error(frames, flow, mask[:, None])) for name, mask in error.items()}
    return {**warped, "colour_deviation": _deviation(images - truth.images, truth.inside)}


def _flow(now, before, inside: Tensor) -> Tensor:
    """(2, h, w) pixels from a frame back to the one before, on the object; 0 elsewhere."""
    a, b = now.things[0], before.things[0]
    axis = (torch.arange(scenes.SIZE) + 0.5) / scenes.SIZE
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    turn, scale = b.angle - a.angle, b.radius / a.radius
    right, down = (x - a.x) * scale, (y - a.y) * scale
    to_x = b.x + right * math.cos(turn) - down * math.sin(turn)
    to_y = b.y + right * math.sin(turn) + down * math.cos(turn)
    return scenes.SIZE * torch.stack([to_x - x, to_y - y]) * inside


def _deviation(error: Tensor, mask: Tensor) -> float:
    """Standard deviation over frames of the mean colour error on the true object, 0 to 255."""
    means = torch.stack([e[m].mean(dim=0) for e, m in zip(error, mask, strict=True) if m.any()])
    return 255 * means.std(dim=0, correction=0).mean().item()


def covariate_shift(before: Tensor, after: Tensor) -> dict[str, float]:
    """How far a temporal module moves the statistics of its channels; both (frames, tokens, d)."""
    x, y = before.flatten(0, 1).double(), after.flatten(0, 1).double()
    centred = x - x.mean(dim=0), y - y.mean(dim=0)
    covariance = [c.T @ c / len(c) for c in centred]
    spread = covariance[0].diagonal().mean().sqrt()
    return {
        "mean_shift": ((y.mean(dim=0) - x.mean(dim=0)).square().mean().sqrt() / spread).item(),
        "covariance_shift": ((covariance[1] - covariance[0]).norm() / covariance[0].norm()).item(),
    }


def _mean(values: Tensor) -> float:
    return values.mean().item() if values.numel() else math.nan


def _finite_mean(values: Tensor) -> float:
    return _mean(values[values.isfinite()])
