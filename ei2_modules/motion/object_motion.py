"""How the object inside a mask moves through a clip: a turn, a scale and a shift from frame to frame.

A similarity that begins with the flow inside the mask, or with the mask alone, and is refined on the pixels of both
frames (Gauss and Newton).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .filters import blurred, grown
from .flow import Flow
from .optical_flow import axes

ROUNDS = 6  # of reweighting
SPREAD, LEAST = 1.5, 0.25  # an outlier is so many median residuals away, and a quarter pixel at least
TRUSTED = 0.05  # of the greatest weight, from which on a pixel counts for the median
FLAT = 1e-6  # weight of a pixel without any edge: where there are none, all count alike
BLURS = (4, 2, 1)  # times the picture is blurred before it is aligned, coarse first
ALIGNING = 10  # steps of Gauss and Newton for each
DAMPING = 1e-3
UNTURNED = 0.003  # how much no turn is believed, beside what the pixels say of the size
MARGIN = 0.02  # of the longer side, around the mask, whose pixels are aligned: edges lie there


def motions(frames: Tensor, masks: Tensor, flow: Flow, on_frame: Callable[[], None] = lambda: None) -> Tensor:
    """(n, 3, 3): where the pixels (x, y, 1) of the object in each frame are in the first one.

    frames (n, 3, h, w), masks (n, 1, h, w) in 0..1, and the flow of the frames. Across frames whose mask is empty the
    object moves as the middle of its mask does. on_frame() is called before each.
    """
    pictures = torch.cat([frames, masks], dim=1)  # where a mask stands for all frames, it says nothing of motion
    pictures = frames if (masks == masks[:1]).all() else pictures
    found, seen = [torch.eye(3)] * len(frames), None
    for t, mask in enumerate(masks[:, 0] > 0.5):
        on_frame()
        if not mask.any():
            continue
        if seen is not None:
            starts = [by_mask(mask, masks[seen, 0] > 0.5)]
            if seen == t - 1:
                starts.append(by_flow(frames[t], mask, flow.backward[t - 1]))
            tried = [aligned(pictures[t], pictures[seen], masks[t], start) for start in starts]
            step, _ = min(tried, key=lambda one: one[1])
            found[t] = found[seen] @ torch.cat([step, torch.tensor([[0.0, 0.0, 1.0]])])
        seen = t
    return torch.stack(found)


def by_mask(mask: Tensor, other: Tensor) -> Tensor:
    """(2, 3): from one mask (h, w) bool to the other, by their middles and sizes."""
    points, targets = (one.nonzero().flip(1).float() for one in (mask, other))
    scale = (len(targets) / len(points)) ** 0.5
    turn = scale * torch.eye(2)
    return torch.cat([turn, (targets.mean(0) - scale * points.mean(0))[:, None]], dim=1)


def by_flow(frame: Tensor, mask: Tensor, flow: Tensor) -> Tensor:
    """(2, 3): fitted to the flow (2, h, w) inside the mask, pixels counting by their edges: flow is right there."""
    edges = sum(part.square().sum(0) for part in torch.gradient(frame.mean(0, keepdim=True), dim=(1, 2)))
    points = torch.stack(axes(frame), dim=-1)[mask]
    return robust_similarity(points, points + flow[:, mask].T, edges[mask] + FLAT)


def aligned(picture: Tensor, other: Tensor, mask: Tensor, start: Tensor) -> tuple[Tensor, float]:
    """(the similarity (2, 3) from `start` on that takes a picture's object to the other's, mean squared error).

    picture, other (c, h, w), mask (1, h, w) in 0..1 of the picture's object.
    """
    inside = grown(mask, MARGIN)[0] > 0.5
    points = torch.stack(axes(picture), dim=-1)[inside]
    found, middle = start, points.mean(0)
    for blur in BLURS:
        here, there = picture, other
        for _ in range(blur):
            here, there = blurred(here, 3), blurred(there, 3)
        slopes = torch.cat(torch.gradient(there, dim=(2, 1)))  # along x, then y
        for _ in range(ALIGNING):
            at = points @ found[:, :2].T + found[:, 2]
            values, slope = sampled(there, at), sampled(slopes, at)
            error = here[:, inside] - values  # (c, p)
            change = _newton(error, slope.view(2, *error.shape), points - middle, found[1, 0])
            change[:, 2] -= change[:, :2] @ middle
            found = found + change
    return found, (here[:, inside] - sampled(there, points @ found[:, :2].T + found[:, 2])).square().mean().item()


def _newton(error: Tensor, slope: Tensor, points: Tensor, turned: Tensor) -> Tensor:
    """(2, 3): what is added to a similarity about the middle of points (p, 2): errors (c, p), slopes (2, c, p).

    turned: its turn so far, which is drawn towards none: of a plain disc nothing else says how it turns.
    """
    (x, y), (dx, dy) = points.T, slope
    columns = torch.stack([dx * x + dy * y, dy * x - dx * y, dx, dy]).flatten(1)  # of a, b and the shift
    spread = (SPREAD * error.abs().mean()).clamp(min=1e-3)
    weight = (1 / (1 + (error / spread).square()).square()).flatten()
    normal = (columns * weight) @ columns.T
    right = (columns * weight) @ error.flatten()
    prior = UNTURNED * normal[0, 0]
    normal = normal + torch.diag(DAMPING * normal.diag() + 1e-9)
    normal[1, 1] += prior
    right[1] -= prior * turned
    a, b, shift_x, shift_y = torch.linalg.solve(normal, right)
    return torch.stack([torch.stack([a, -b, shift_x]), torch.stack([b, a, shift_y])])


def sampled(picture: Tensor, at: Tensor) -> Tensor:
    """(c, h, w) at places (p, 2) in pixels -> (c, p); beyond the border it goes on as there."""
    size = at.new_tensor([picture.shape[2], picture.shape[1]])
    places = (2 * at + 1) / size - 1
    return F.grid_sample(picture[None], places[None, None], padding_mode="border", align_corners=False)[0, :, 0]


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


def described(motions: Tensor) -> str:
    """How the object moves from its first frame to its last, in words. motions: of the frames that show it."""
    a, b = torch.linalg.inv(motions)[:, :2, 0].T  # of the first column of each turn and scale
    steps = (torch.atan2(b, a).diff() + torch.pi) % (2 * torch.pi) - torch.pi  # added, for more than half a turn
    turn, scale = torch.rad2deg(steps.sum()).round() + 0.0, torch.hypot(a, b)[-1]  # no -0
    return (
        f"From its first frame to its last the object turns by {turn:.0f} degrees (clockwise) and becomes "
        f"{scale:.2f} times as large."
    )
