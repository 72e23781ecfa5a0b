"""The object of one edited frame, carried through its clip along the motion that the source's object has.

An edit that changes a shape draws it anew in every frame, and no two are quite alike. Here one frame's drawing takes the
place of the others: it is moved, turned and scaled as the source's object is, by a similarity that is fitted to the
flow inside the object's mask.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .flow import Flow
from .optical_flow import warp

ROUNDS = 6  # of reweighting
SPREAD, LEAST = 1.5, 0.25  # an outlier is so many median residuals away, and a quarter pixel at least
TRUSTED = 0.05  # of the greatest weight, from which on a pixel counts for the median
FLAT = 1e-6  # weight of a pixel without any edge: where there are none, all count alike


def motions(frames: Tensor, masks: Tensor, flow: Flow) -> Tensor:
    """(n, 3, 3): where the pixels (x, y, 1) of the object in each frame are in the first one.

    frames (n, 3, h, w), masks (n, 1, h, w) in 0..1, and the flow of the frames. Flow is right at edges, so pixels count
    by their squared gradient. Across frames whose mask is empty the object moves as the middle of its mask does.
    """
    edges = sum(part.square().sum(1) for part in torch.gradient(frames, dim=(2, 3)))
    places = torch.stack(_axes(frames), dim=-1)  # (h, w, 2)
    found, seen = [torch.eye(3)] * len(frames), None
    for t, mask in enumerate(masks[:, 0] > 0.5):
        if not mask.any():
            continue
        if seen is not None:
            points, last = places[mask], places[masks[seen, 0] > 0.5]
            if seen == t - 1:
                targets = points + flow.backward[t - 1][:, mask].T
                step = robust_similarity(points, targets, edges[t][mask] + FLAT)
            else:
                step = torch.cat([torch.eye(2), (last.mean(0) - points.mean(0))[:, None]], dim=1)
            found[t] = found[seen] @ torch.cat([step, torch.tensor([[0.0, 0.0, 1.0]])])
        seen = t
    return torch.stack(found)


def robust_similarity(points: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """(2, 3) that takes points (p, 2) to targets (p, 2); weights (p) are lowered for outliers, by Geman and McClure."""
    found = similarity(points, targets, weight)
    for _ in range(ROUNDS):
        residual = (targets - points @ found[:, :2].T - found[:, 2]).norm(dim=1)
        spread = (SPREAD * residual[weight > TRUSTED * weight.max()].median()).clamp(min=LEAST)
        found = similarity(points, targets, weight / (1 + (residual / spread).square()).square())
    return found


def similarity(points: Tensor, targets: Tensor, weight: Tensor) -> Tensor:
    """Weighted least squares of a turn, a scale and a shift, (2, 3). One point alone is shifted."""
    share = (weight / weight.sum())[:, None]
    middle, aim = (share * points).sum(0), (share * targets).sum(0)
    p, q = points - middle, targets - aim
    size = (share * p.square()).sum()
    if size < 1e-12:
        a, b = size + 1, size * 0
    else:
        a = (share * p * q).sum() / size
        b = (share[:, 0] * (p[:, 0] * q[:, 1] - p[:, 1] * q[:, 0])).sum() / size
    turn = torch.stack([torch.stack([a, -b]), torch.stack([b, a])])
    return torch.cat([turn, (aim - turn @ middle)[:, None]], dim=1)


def carried(edited: Tensor, masks: Tensor, motions: Tensor, key: int, grow: float) -> Tensor:
    """Frame `key` of an edit (n, 3, h, w) put into all others, inside their masks grown by `grow` of the longer side.

    A frame whose mask is empty stays as it is.
    """
    x, y = _axes(edited)
    here = torch.stack([x, y, torch.ones_like(x)]).flatten(1)  # (3, h * w)
    frames = []
    for frame, mask, motion in zip(edited, masks, motions, strict=True):
        there = (torch.linalg.solve(motions[key], motion) @ here)[:2] - here[:2]
        moved = warp(edited[key][None], there.view(1, 2, *x.shape))[0]
        frames.append(frame + grown(mask, grow) * (moved - frame))
    frames[key] = edited[key]
    return torch.stack(frames)


def grown(mask: Tensor, by: float) -> Tensor:
    """(1, h, w), wider by a share of the longer side, with a soft edge."""
    reach = max(1, round(by * max(mask.shape[-2:]))) if by else 0
    wide = F.max_pool2d((mask > 0.5).float()[None], 2 * reach + 1, 1, reach)
    return F.avg_pool2d(F.pad(wide, (1,) * 4, mode="replicate"), 3, 1)[0]


def most_typical(edited: Tensor, masks: Tensor, motions: Tensor, grow: float) -> int:
    """The frame that, carried into the others, differs least from them."""
    seen = [t for t, mask in enumerate(masks) if (mask > 0.5).any()]
    differences = [(carried(edited, masks, motions, t, grow) - edited).abs().mean().item() for t in seen]
    return seen[differences.index(min(differences))]


def _axes(frames: Tensor) -> tuple[Tensor, Tensor]:
    """x and y of every pixel, (h, w) each."""
    h, w = frames.shape[-2:]
    y, x = torch.meshgrid(torch.arange(h).float(), torch.arange(w).float(), indexing="ij")
    return x, y
