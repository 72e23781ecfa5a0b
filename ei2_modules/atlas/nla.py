"""The networks of Layered Neural Atlases (Kasten et al. 2021), as its published code trains them, and what they say.

Two map pixels (x, y, t) to the layers' planes, one tells alpha, and one holds both layers' pictures in two quadrants of
its plane (paper, section 3). Everything but the coordinates is read off the shapes of the weights. nla_bake.py turns
them into an atlas of ours, nla_file.py reads them; only a benchmark trains them.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ..errors import WeightsError
from .maps import Size, half

CHUNK = 1 << 15  # points that are evaluated at once: 256 numbers of each layer are 32 MiB
SIDES = {"foreground": (3, 2), "background": (3, 2), "alpha": (3, 1), "atlas": (2, 3)}  # numbers in, numbers out
QUADRANTS = 0.5, -0.5  # where the atlas network's plane has the middle of the foreground and of the background

Tick = Callable[[int], None]  # called with 0 after every chunk, with 1 after every frame and every picture


@dataclass(frozen=True)
class Network:
    """Linear layers with ReLU between and tanh behind; the (encoded) input may be handed to later ones again."""

    weights: tuple[Tensor, ...]  # (out, in) each
    biases: tuple[Tensor, ...]  # (out,)
    inputs: int  # numbers of a point

    @classmethod
    def of(cls, state: dict[str, Tensor], inputs: int, outputs: int) -> "Network":
        """From `hidden.{k}.weight` and `hidden.{k}.bias`. Raises WeightsError, the sentence to follow a name."""
        count = len(state) // 2
        names = {part: [f"hidden.{k}.{part}" for k in range(count)] for part in ("weight", "bias")}
        odd = sorted(map(str, set(state) ^ {name for part in names.values() for name in part}))
        if odd or not all(isinstance(part, Tensor) for part in state.values()):
            raise WeightsError(f"is another kind of network{': ' * bool(odd)}{', '.join(odd[:3])}")
        network = cls(*(tuple(state[name].float() for name in part) for part in names.values()), inputs)
        network._check(outputs)
        return network

    def _check(self, outputs: int) -> None:
        if not self.weights or any(weight.ndim != 2 for weight in self.weights):
            raise WeightsError("has no layers")
        width = self.encoded
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            taken = (width, width + self.encoded) if k else (width,)
            if weight.shape[1] not in taken or tuple(bias.shape) != (len(weight),):
                shapes = f"{tuple(weight.shape)} and {tuple(bias.shape)}"
                raise WeightsError(f"does not fit together: layer {k} is {shapes} behind {width} numbers")
            if not (weight.isfinite().all() and bias.isfinite().all()):
                raise WeightsError(f"holds values that are not finite in layer {k}: its training failed")
            width = len(weight)
        encodes = self.encoded == self.inputs or self.encoded % (2 * self.inputs) == 0
        if not encodes or width != outputs:
            raise WeightsError(
                f"takes {self.encoded} numbers and gives {width}: it should make {outputs} of {self.inputs}, or of a "
                f"multiple of {2 * self.inputs} where they are encoded"
            )

    @property
    def encoded(self) -> int:
        """Numbers that the first layer takes."""
        return self.weights[0].shape[1]

    @property
    def frequencies(self) -> int:
        """Of the positional encoding; 0 without one."""
        return 0 if self.encoded == self.inputs else self.encoded // (2 * self.inputs)

    @property
    def width(self) -> int:
        return len(self.weights[0])

    def to(self, device: torch.device | str) -> "Network":
        parts = (tuple(part.to(device) for part in parts) for parts in (self.weights, self.biases))
        return Network(*parts, self.inputs)

    def __call__(self, points: Tensor) -> Tensor:
        """(p, inputs) -> (p, outputs) in -1..1."""
        first = found = encoded(points, self.frequencies) if self.frequencies else points
        for k, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            found = found.relu() if k else found
            if weight.shape[1] != found.shape[1]:  # a skip: the input again, behind what was made of it
                found = torch.cat([found, first.detach()], dim=1)  # no gradient goes this way, as published
            found = torch.addmm(bias, found, weight.T)
        return found.tanh()


def encoded(points: Tensor, frequencies: int) -> Tensor:
    """Positional encoding of points (p, d) -> (p, 2 d frequencies).

    For each frequency 2^k pi in turn, the sines of all coordinates and then their cosines; the points themselves are
    left out (unlike NeRF's code).
    """
    angles = points[:, None] * (math.pi * 2.0 ** torch.arange(frequencies, device=points.device))[:, None]
    return torch.cat([angles.sin(), angles.cos()], dim=2).flatten(1)


@dataclass(frozen=True)
class Networks:
    """All four of a checkpoint."""

    foreground: Network
    background: Network
    alpha: Network
    atlas: Network

    def to(self, device: torch.device | str) -> "Networks":
        return Networks(*(getattr(self, field.name).to(device) for field in fields(self)))

    def frame(self, size: Size, t: int, n: int, tick: Tick) -> tuple[tuple[Tensor, Tensor], Tensor]:
        """Of frame t of n: where its pixels lie on both layers' planes, (h, w, 2) each in -1..1, and alpha (h, w).

        alpha: 0.99 (M + 1) / 2 + 0.001, as the published code keeps logarithms finite. On the CPU.
        """
        points = places(size, t, n)
        maps = tuple(self._of(network, points, tick).view(*size, 2) for network in (self.foreground, self.background))
        return maps, 0.99 * (self._of(self.alpha, points, tick).view(size) + 1) / 2 + 0.001

    def picture(self, uv: Tensor, layer: int, tick: Tick) -> Tensor:
        """Colours (3, rows, columns) in 0..1 of a layer (0 foreground, 1 background) at uv (rows, columns, 2)."""
        colours = self._of(self.atlas, uv.flatten(0, 1) / 2 + QUADRANTS[layer], tick)
        return ((colours + 1) / 2).T.reshape(3, *uv.shape[:2])

    @staticmethod
    def _of(network: Network, points: Tensor, tick: Tick) -> Tensor:
        found, device = [], network.weights[0].device
        for some in points.split(CHUNK):
            found.append(network(some.to(device)).cpu())
            tick(0)
        return torch.cat(found)


def places(size: Size, t: int, n: int) -> Tensor:
    """(h w, 3): x, y and t of the pixels of frame t of n, row by row, as the networks know them.

    x = j / (L / 2) - 1 and y alike, L being the longer side: from the corner and not from the middle, and pixel j is j
    where this pack's maps say j + 1/2. t = f / (n / 2) - 1, of the n frames that were trained on; StableVideo takes the
    configured maximum in its place, which is wrong for shorter clips.
    """
    x, y = (torch.arange(side) / half(size) - 1 for side in (size[1], size[0]))
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([x, y, torch.full_like(x, t / (n / 2) - 1)], dim=-1).flatten(0, 1)
