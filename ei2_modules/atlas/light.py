"""Light that changes: smooth gains a frame, against the middle frame, in closed form along the flow."""

import torch
from torch import Tensor

from ..motion.flow import Flow
from . import spline
from .chain import Lattice, Splines, outwards
from .maps import to_sampling
from .texture import sample_picture

CELLS = 1, 2  # rows and columns of the splines: light is smooth
SMOOTH = 1e-6
UNIT = 12.5  # 2 % of light and more may be an outlier
BLACK = 0.04  # a colour below says nothing of the light


def chained_gains(frames: Tensor, flow: Flow) -> Tensor:
    """Logarithms of what the light multiplies by, as control points (n, 3, rows + 3, columns + 3).

    What frame t shows at p, its neighbour towards the middle shows at p + flow(p), in a light that is known already:
    log g_t(p) = log I_t(p) - log I_s(p + flow(p)) + log g_s(p + flow(p)), fitted robustly by splines.
    """
    lattice = Lattice(flow)
    splines, always = Splines(lattice, CELLS, SMOOTH, UNIT), torch.ones(1, *flow.size)
    found = [frames.new_zeros(1, 3, *(n + 3 for n in CELLS))] * flow.frames
    for t, before in outwards(flow.frames):
        here, moved = lattice.at(frames[t]), to_sampling(lattice.moved(t), flow.size)[None, None]
        there = sample_picture(frames[before : before + 1], moved)[0, :, 0]
        light = sample_picture(spline.surface(found[before], flow.size), moved)[0, :, 0]
        target = here.clamp(min=BLACK).log() - there.clamp(min=BLACK).log() + light
        bright = torch.minimum(here, there).amin(0, keepdim=True) > BLACK
        found[t] = splines.fit(target.T[None], lattice.weight(t, always) * bright)
    return torch.cat(found)


def without(frames: Tensor, gains: Tensor) -> Tensor:
    """The frames (m, 3, h, w) in the middle frame's light; gains: their control points."""
    return frames / spline.surface(gains, tuple(frames.shape[-2:])).exp()
