"""A clip whose object moves in a known way, and how far a fitted motion is off."""

import math

import torch

from ei2_modules.motion.flow import Flow

SIZE = 40


def turn(degrees: float, scale: float = 1.0, dx: float = 0.0, dy: float = 0.0) -> torch.Tensor:
    """(3, 3) about the middle of the picture."""
    a, b = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    middle = torch.tensor([SIZE / 2, SIZE / 2])
    matrix = torch.tensor([[a, -b], [b, a]])
    shift = middle + torch.tensor([dx, dy]) - matrix @ middle
    return torch.cat([torch.cat([matrix, shift[:, None]], 1), torch.tensor([[0.0, 0.0, 1.0]])])


WAY = [turn(0), turn(6, 1.03, 1, 0), turn(12, 1.05, 2, 0.5), turn(20, 1.1, 3.5, 1)]


def clip_of(moves: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor, Flow]:
    """(frames, masks, flow) of a spotted square: moves[t] takes the first frame's places to those of frame t.

    The flow is the object's inside its mask, and nonsense outside.
    """
    axis = torch.arange(SIZE).float()
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)]).flatten(1)
    frames, masks, back = [], [], []
    for t, move in enumerate(moves):
        u, v = ((torch.linalg.inv(move) @ here)[:2] - SIZE / 2).view(2, SIZE, SIZE)
        mask = (2 * (9 - torch.maximum(u.abs(), v.abs()))).sigmoid()
        inside = mask > 0.5
        frames.append((mask * (0.5 + 0.5 * (u * 0.5).sin() * (v * 0.4).cos()) + (1 - mask) * 0.1).expand(3, -1, -1))
        masks.append(mask[None])
        if t:
            there = (moves[t - 1] @ torch.linalg.inv(move) @ here)[:2].view(2, SIZE, SIZE) - torch.stack([x, y])
            back.append(torch.where(inside, there, torch.full_like(there, 7.0)))
    back, agrees = torch.stack(back), torch.ones(len(moves) - 1, 1, SIZE, SIZE, dtype=torch.bool)
    return torch.stack(frames), torch.stack(masks), Flow(-back, back, agrees, agrees)


def with_flow(flow: Flow, backward) -> Flow:
    """The flow of as many frames, the same in every pixel: (dx, dy)."""
    back = torch.tensor(backward, dtype=torch.float32).view(1, 2, 1, 1).expand_as(flow.backward)
    return Flow(-back, back, flow.forward_agrees, flow.backward_agrees)


def farthest(found: torch.Tensor, way: list[torch.Tensor]) -> float:
    """Pixels that a corner of the object is off, in the worst frame."""
    corners = torch.tensor([[11.0, 11, 1], [29, 11, 1], [29, 29, 1], [11, 29, 1]]).T
    aims = way[0] @ corners
    gaps = [(motion @ move @ corners - aims)[:2].norm(dim=0).max() for motion, move in zip(found, way, strict=True)]
    return max(gaps).item()
