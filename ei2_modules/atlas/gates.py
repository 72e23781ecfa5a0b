"""How far an atlas can be trusted: figures, each with the bound it should keep and what to do where it does not.

PSNR alone misleads: free maps can draw every frame from places that do not belong together. So the maps are measured
against the flow between neighbours, and from the middle frame to far ones, where slip adds up that neighbours hide.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..motion.flow import Flow
from ..motion.optical_flow import estimate_flow, followed
from .atlas import Atlas
from .maps import half, pixels, to_sampling
from .texture import sample_picture

FAR = 4  # frames that the middle one is compared with
NEWTON = 6  # steps of inverting a map: more change nothing
REFUSED = 0.15  # share of flow that agrees below which a fit is refused
BELONGS = 0.9  # how much of a layer must be seen for a pixel to be its own


@dataclass(frozen=True)
class Gate:
    """One figure. It is fine when it is finite and on the right side of its bound."""

    name: str
    value: float
    unit: str
    bound: float
    at_least: bool
    advice: str

    @property
    def fine(self) -> bool:
        """What could not be measured is no fault."""
        return math.isnan(self.value) or (self.value >= self.bound if self.at_least else self.value <= self.bound)

    def line(self) -> str:
        """In words."""
        value = "not measurable" if math.isnan(self.value) else f"{self.value:.3g}{self.unit}"
        word = "at least" if self.at_least else "at most"
        ending = "" if self.fine else f". {self.advice}"
        verdict = "fine" if self.fine else "LOOK"
        return f"{verdict}  {self.name}: {value} (should be {word} {self.bound:g}{self.unit}){ending}"


def flow_share(flow: Flow) -> Gate:
    """The one gate before a fit."""
    advice = "Take more frames of the same time (a smaller step), a larger size, or RAFT in Optical Flow."
    return Gate("flow that agrees both ways", 100 * flow.share(), " %", 40, True, advice)


def gates(atlas: Atlas, frames: Tensor, masks: tuple[Tensor, ...], flow: Flow) -> list[Gate]:
    """All of them. frames (n, 3, h, w), masks (n, 1, h, w), as they were fitted."""
    found = [flow_share(flow), reconstruction(atlas, frames)]
    for k in range(len(atlas.layers)):
        found += of_maps(atlas, frames, flow, k)
    return [*found, of_picture(atlas)] + [of_alpha(atlas, mask, k) for k, mask in enumerate(masks)]


def of_maps(atlas: Atlas, frames: Tensor, flow: Flow, k: int) -> list[Gate]:
    """Those of a layer's maps."""
    name, near, far = layer_name(atlas, k), neighbour_error(atlas, flow, k), far_error(atlas, frames, k)
    return [
        Gate(f"{name}'s map between neighbours, mean", _mean(near), " px", 1, False, _SLIPS),
        Gate(f"{name}'s map from the middle to far frames, mean", _mean(far), " px", 1.5, False, _DRIFTS),
        Gate(f"{name}'s map from the middle to far frames, 95th percentile", _p95(far), " px", 5, False, _DRIFTS),
        of_stretch(atlas, k),
    ]


def of_stretch(atlas: Atlas, k: int) -> Gate:
    """That of a layer's shapes."""
    return Gate(f"{layer_name(atlas, k)}'s stretch, 95th percentile", _p95(stretch(atlas, k)), "", 5, False, _BENDS)


def of_picture(atlas: Atlas) -> Gate:
    """How much of the background's picture is known."""
    name = f"{layer_name(atlas, len(atlas.layers) - 1)}'s picture seen by some frame"
    return Gate(name, 100 * coverage(atlas, -1), " %", 30, True, _UNSEEN)


def of_alpha(atlas: Atlas, mask: Tensor, k: int) -> Gate:
    """That of a layer's alpha; mask (n, 1, h, w)."""
    return Gate(f"{layer_name(atlas, k)}'s alpha on its mask, IoU", iou(atlas, mask, k), "", 0.25, True, _EATEN)


_SLIPS = "The motion is not followed: take more frames of the same time, or motion non-rigid."
_DRIFTS = "An edit will slip over the object here: split the clip, or try motion non-rigid."
_BENDS = "It bends or turns more than one sheet can follow: split the clip."
_EATEN = "Look at alpha: the object may have gone into the background's picture. Draw the mask closer to it."
_UNSEEN = "Most of it is a guess: the camera leaves the scene, or the mask is far too large. Split the clip."


def layer_name(atlas: Atlas, k: int) -> str:
    """As a user knows it."""
    if k == len(atlas.layers) - 1:
        return "background" if atlas.alphas else "clip"
    return "foreground" if len(atlas.alphas) == 1 else f"foreground {k + 1}"


def reconstruction(atlas: Atlas, frames: Tensor) -> Gate:
    """PSNR, the mean over frames."""
    errors = torch.cat([(atlas.render(c) - frames[c]).square().mean((1, 2, 3)) for c in atlas.chunks()])
    value = (-10 * errors.clamp(min=1e-10).log10()).mean().item()
    return Gate("reconstruction, PSNR", value, " dB", 24, True, "Try preset high; where light changes, lighting.")


def neighbour_error(atlas: Atlas, flow: Flow, k: int) -> Tensor:
    """(p,) px: where the maps find a pixel in the next frame, against where the flow does.

    Over pixels that agree both ways and of which the layer is seen.
    """
    found, unit, points = [], half(atlas.size), pixels(atlas.size, flow.forward).flatten(0, 1)
    maps = atlas.layers[k].maps
    for t in range(flow.frames - 1):
        own = (atlas.seen([t])[k][0] > BELONGS) & flow.forward_agrees[t]
        start = points[own.flatten()]
        end = start + flow.forward[t].flatten(1).T[own.flatten()] / unit
        gap = maps[[t + 1]].at(end[None], atlas.size) - maps[[t]].at(start[None], atlas.size)
        shift = _solved(maps[[t + 1]].jacobian(end[None], atlas.size), gap)
        found.append(shift[0].norm(dim=1) * unit)
    return torch.cat(found)


def far_error(atlas: Atlas, frames: Tensor, k: int) -> Tensor:
    """(p,) px: the motion that is left between the middle frame and far ones warped onto it by the maps."""
    middle = atlas.frames // 2
    chosen = sorted({round(i * (atlas.frames - 1) / (FAR - 1)) for i in range(FAR)} - {middle})
    found = [torch.zeros(0)]
    for t in chosen:
        place = inverted(atlas, k, t, atlas.maps([middle], k))
        sampling = to_sampling(place, atlas.size)
        inside = (sampling.abs() < 1).all(-1)[:, None]
        own = (atlas.seen([middle])[k] > BELONGS) & (sample_picture(atlas.seen([t])[k], sampling) > BELONGS) & inside
        here = frames[middle : middle + 1]
        there = torch.where(own, sample_picture(frames[t : t + 1], sampling), here)
        flow = estimate_flow(here, there)
        own = own & followed(flow, estimate_flow(there, here))
        found.append(flow.norm(dim=1, keepdim=True)[own])
    return torch.cat(found)


def inverted(atlas: Atlas, k: int, t: int, targets: Tensor) -> Tensor:
    """Where frame t shows positions of a layer, (1, h, w, 2) both: Newton's method from the affine inverse."""
    maps = atlas.layers[k].maps[[t]]
    wanted = targets.flatten(1, 2)
    point = _solved(maps.affine[:, None, :, :2], wanted - maps.affine[:, None, :, 2])
    for _ in range(0 if maps.offsets is None else NEWTON):
        point = point + _solved(maps.jacobian(point, atlas.size), wanted - maps.at(point, atlas.size))
    return point.view_as(targets)


def stretch(atlas: Atlas, k: int) -> Tensor:
    """(p,): the ratio of the Jacobian's singular values, where the layer is seen; 1 keeps all shapes."""
    found = []
    for t in range(atlas.frames):
        own = (atlas.seen([t])[k][0, 0] > BELONGS)[::4, ::4]
        points = pixels(atlas.size, torch.zeros(()))[::4, ::4][own]
        values = torch.linalg.svdvals(atlas.layers[k].maps[[t]].jacobian(points[None], atlas.size)[0])
        found.append(values[:, 0] / values[:, 1].clamp(min=1e-6))
    return torch.cat(found)


def coverage(atlas: Atlas, k: int) -> float:
    """Share of a layer's picture that some frame shows."""
    return atlas.layers[k].observed.float().mean().item()


def iou(atlas: Atlas, mask: Tensor, k: int) -> float:
    """What alpha and the mask (n, 1, h, w) have in common, of what either covers; 1 where they are the same."""
    common = either = 0
    for t in range(atlas.frames):
        alpha, inside = atlas.alpha([t], k)[0] > 0.5, mask[t] > 0.5
        common += (alpha & inside).sum().item()
        either += (alpha | inside).sum().item()
    return common / either if either else math.nan


def _solved(jacobian: Tensor, right: Tensor) -> Tensor:
    """J^-1 r of (n, p, 2, 2) and (n, p, 2), in closed form; a map that folds gives large values, not an error."""
    (a, b), (c, d) = (row.unbind(-1) for row in jacobian.unbind(-2))
    x, y = right.unbind(-1)
    determinant = a * d - b * c
    determinant = torch.where(determinant.abs() < 1e-4, 1e-4, determinant)
    return torch.stack([d * x - b * y, a * y - c * x], dim=-1) / determinant[..., None]


def _mean(values: Tensor) -> float:
    return values.mean().item() if len(values) else math.nan


def _p95(values: Tensor) -> float:
    return values[:: max(1, len(values) // 100_000)].quantile(0.95).item() if len(values) else math.nan
