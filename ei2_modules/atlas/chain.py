"""The maps of a layer from its flow, in closed form: from the middle frame outwards, each through the one before.

What frame t shows at p, its neighbour towards the middle shows at p + flow(p), whose map is known already; so the map
of t is fitted to known positions: an affine map first, then a spline for what is left, both robustly.
"""

import torch
from torch import Tensor

from ..motion.flow import Flow
from . import affine, spline
from .maps import Maps, half, pixels, to_sampling

POINTS = 9000  # of a frame that its map is computed from
ROUNDS = 3  # of reweighting for the splines
SMALL = 1e-8  # the same of the control points themselves: where no point counts
DOUBTED = 0.02  # weight of pixels whose flow does not agree both ways


def towards(flow: Flow, t: int) -> tuple[Tensor, Tensor]:
    """(flow (2, h, w), where it agrees (1, h, w)) of frame t to its neighbour towards the middle, or before it."""
    if t >= flow.frames // 2:
        return flow.backward[t - 1], flow.backward_agrees[t - 1]
    return flow.forward[t], flow.forward_agrees[t]


def outwards(frames: int) -> list[tuple[int, int]]:
    """(frame, its neighbour towards the middle) of all but the middle, so that the neighbour comes first."""
    middle = frames // 2
    return [(t, t - 1) for t in range(middle + 1, frames)] + [(t, t + 1) for t in range(middle - 1, -1, -1)]


class Lattice:
    """Some pixels of a frame, evenly spread, where its maps are computed from."""

    def __init__(self, flow: Flow):
        self.flow, self.unit = flow, half(flow.size)
        stride = max(1, round((flow.size[0] * flow.size[1] / POINTS) ** 0.5))
        self.every = (..., slice(stride // 2, None, stride), slice(stride // 2, None, stride))
        self.points = self.at(pixels(flow.size, flow.forward).permute(2, 0, 1)).T  # (p, 2)

    def at(self, picture: Tensor) -> Tensor:
        """(c, h, w) -> (c, p)."""
        return picture[self.every].flatten(1)

    def moved(self, t: int) -> Tensor:
        """(p, 2): where they are in the neighbour of frame t."""
        return self.points + self.at(towards(self.flow, t)[0]).T / self.unit

    def weight(self, t: int, weight: Tensor) -> Tensor:
        """(1, p) of a weight (1, h, w), and of whether the flow agrees."""
        return self.at(weight * (towards(self.flow, t)[1] + DOUBTED).clamp(max=1))


def steps(flow: Flow, weights: list[Tensor] | Tensor) -> Tensor:
    """(n, 2, 3): affine motion from every frame to its neighbour; weights: (1, h, w) each, what of it counts."""
    lattice = Lattice(flow)
    points, unit = lattice.points, lattice.unit
    parts = ((lattice.moved(t)[None], lattice.weight(t, weights[t])) for t in range(flow.frames))
    return torch.cat([affine.fit(points, moved, weight, unit) for moved, weight in parts])


def chained(flow: Flow, weights: Tensor, cells: tuple[int, int] | None, smooth: float) -> Maps:
    """The maps of all frames into the middle one.

    weights: (n, 1, h, w); cells: of the splines, None for affine maps; smooth: the weight of squared second differences
    of control points beside the mean squared error.
    """
    lattice = Lattice(flow)
    identity = Maps(torch.eye(3)[None, :2], None if cells is None else torch.zeros(1, 2, *(n + 3 for n in cells)))
    found = [identity] * flow.frames
    splines = None if cells is None else Splines(lattice, cells, smooth, lattice.unit)
    for t, before in outwards(flow.frames):
        targets = found[before].at(lattice.moved(t)[None], flow.size)
        weight = lattice.weight(t, weights[t])
        plane = affine.fit(lattice.points, targets, weight, lattice.unit)
        rest = targets - Maps(plane).at(lattice.points[None], flow.size)
        found[t] = Maps(plane, None if splines is None else splines.fit(rest, weight))
    offsets = None if cells is None else torch.cat([m.offsets for m in found])
    return Maps(torch.cat([m.affine for m in found]), offsets)


class Splines:
    """Least squares of control points, for the points of one lattice and one grid.

    unit: values from a quarter of 1 / unit on may be outliers.
    """

    def __init__(self, lattice: Lattice, cells: tuple[int, int], smooth: float, unit: float):
        self.sizes, self.unit = [n + 3 for n in cells], unit
        place = (to_sampling(lattice.points.double(), lattice.flow.size) + 1) / 2
        down, across = spline.weights(place[:, 1], cells[0]), spline.weights(place[:, 0], cells[1])
        self.basis = (down[:, :, None] * across[:, None]).flatten(1)  # (p, control points)
        rough_rows, rough_columns = (torch.eye(n, dtype=torch.float64).diff(n=2, dim=0) for n in self.sizes)
        eyes = [torch.eye(n, dtype=torch.float64) for n in self.sizes]
        rough = torch.cat([torch.kron(rough_rows, eyes[1]), torch.kron(eyes[0], rough_columns)])
        self.prior = smooth * rough.T @ rough + SMALL * torch.eye(rough.shape[1], dtype=torch.float64)

    def fit(self, rest: Tensor, weight: Tensor) -> Tensor:
        """Control points (1, c, rows + 3, columns + 3) of values (1, p, c) with weights (1, p)."""
        rest, weight = rest[0].double(), weight.double()
        found = self._solve(rest, weight[0])
        for _ in range(ROUNDS):
            residual = (rest - self.basis @ found).norm(dim=1)[None]
            found = self._solve(rest, affine.reweighted(residual, weight, self.unit)[0])
        return found.T.reshape(1, -1, *self.sizes).float()

    def _solve(self, rest: Tensor, weight: Tensor) -> Tensor:
        weighted = self.basis * (weight / (weight.sum() + 1))[:, None]
        return torch.linalg.solve(self.basis.T @ weighted + self.prior, weighted.T @ rest)
