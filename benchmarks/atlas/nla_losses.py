"""The losses of Layered Neural Atlases (Kasten et al. 2021) with its released code's weights, over random pixels.

p is a pixel's (x, y, t), M a layer's mapping to uv, a alpha, c the colour that is drawn, I the clip's. Those of our own
fit are ei2_modules/atlas/losses.py: over whole frames, and with other terms beside them.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from ei2_modules.atlas.maps import half
from ei2_modules.atlas.nla import QUADRANTS, Network, Networks, places
from ei2_modules.motion.flow import Flow

SCALE = 0.8  # of uv to x and y, where the mappings begin
FAR = 100  # px over which global rigidity looks
RIDGE = 1e-3  # on J^T J before it is inverted
WEIGHTS = {
    "reconstruction": 5000.0, "gradient": 1000.0, "rigidity": 1.0, "flow": 5.0, "alpha flow": 49.0, "sparsity": 1000.0,
    "bootstrap": 2000.0, "far foreground": 5.0, "far background": 50.0,
}  # fmt: skip
UNTIL = {"bootstrap": 10_000, "far foreground": 5_000, "far background": 5_000}  # the last iteration that has them


@dataclass(frozen=True)
class Pixels:
    """Some of a clip's, p of them."""

    place: Tensor  # (p, 3): x, y and t
    colour: Tensor  # (p, 3) in 0..1
    across: Tensor  # (p, 3): what the next pixel to the right has more of each colour; 0 in the last column
    down: Tensor  # (p, 3): the same of the pixel below
    mask: Tensor  # (p,)
    moved: Tensor  # (p, 2, 3): where the flow finds it in the next frame and in the one before
    followed: Tensor  # (p, 2) bool: the flow agrees both ways

    @classmethod
    def of(cls, frames: Tensor, mask: Tensor, flow: Flow) -> "Pixels":
        """Of frames (n, 3, h, w) and a mask (n, 1, h, w) all pixels, frame by frame and row by row."""
        n, size = len(frames), tuple(frames.shape[-2:])
        place = torch.cat([places(size, t, n) for t in range(n)])
        across, down = (torch.zeros_like(frames) for _ in range(2))
        across[..., :-1], down[..., :-1, :] = frames.diff(dim=3), frames.diff(dim=2)
        steps, followed = torch.zeros(n, 2, *size, 3), torch.zeros(n, 2, *size, dtype=torch.bool)
        steps[:, 0, ..., 2], steps[:, 1, ..., 2] = 2 / n, -2 / n
        steps[:-1, 0, ..., :2] = flow.forward.permute(0, 2, 3, 1) / half(size)
        steps[1:, 1, ..., :2] = flow.backward.permute(0, 2, 3, 1) / half(size)
        followed[:-1, 0], followed[1:, 1] = flow.forward_agrees[:, 0], flow.backward_agrees[:, 0]
        flat = (x.permute(0, 2, 3, 1).flatten(0, 2) for x in (frames, across, down))
        moved = place[:, None] + steps.permute(0, 2, 3, 1, 4).reshape(-1, 2, 3)
        return cls(place, *flat, mask.flatten(), moved, followed.permute(0, 2, 3, 1).reshape(-1, 2))

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, which: Tensor) -> "Pixels":
        return Pixels(*(getattr(self, field.name)[which] for field in fields(self)))


@dataclass(frozen=True)
class Drawn:
    """What the networks say of p points."""

    uv: tuple[Tensor, Tensor]  # (p, 2) each, of the foreground and of the background
    alpha: Tensor  # (p, 1)
    layers: tuple[Tensor, Tensor]  # (p, 3) each: their colours

    @classmethod
    def at(cls, nets: Networks, place: Tensor) -> "Drawn":
        uv = nets.foreground(place), nets.background(place)
        colours = ((nets.atlas(own / 2 + middle) + 1) / 2 for own, middle in zip(uv, QUADRANTS, strict=True))
        return cls(uv, opacity(nets, place), tuple(colours))

    @property
    def colour(self) -> Tensor:
        return self.alpha * self.layers[0] + (1 - self.alpha) * self.layers[1]


def opacity(nets: Networks, place: Tensor) -> Tensor:
    """Alpha of points (p, 3) -> (p, 1) in 0.001..0.991, so that logarithms are finite."""
    return 0.99 * (nets.alpha(place) + 1) / 2 + 0.001


def total(terms: dict[str, Tensor]) -> Tensor:
    return sum(WEIGHTS[name] * term for name, term in terms.items())


def terms(nets: Networks, some: Pixels, unit: float, iteration: int) -> dict[str, Tensor]:
    """Every loss that counts in an iteration, without its weight. unit: pixels of 1 in x and y."""
    drawn, on = Drawn.at(nets, some.place), [name for name in WEIGHTS if iteration <= UNTIL.get(name, iteration)]
    mappings = nets.foreground, nets.background
    pairs = list(zip(mappings, drawn.uv, strict=True))
    found = {
        "reconstruction": (drawn.colour - some.colour).square().sum(1).mean(),
        "gradient": gradient(nets, some, drawn.colour, unit),
        "rigidity": sum(rigidity(mapping, some.place, uv, 1, unit) for mapping, uv in pairs),
        "sparsity": ((1 - drawn.alpha) * drawn.layers[0]).square().sum(1).mean(),
        **flow(nets, some, drawn, unit),
    }
    if "bootstrap" in on:
        found["bootstrap"] = bootstrap(drawn.alpha[:, 0], some.mask)
    for name, (mapping, uv) in zip(("far foreground", "far background"), pairs, strict=True):
        if name in on:
            found[name] = rigidity(mapping, some.place, uv, FAR, unit)
    return found


def gradient(nets: Networks, some: Pixels, colour: Tensor, unit: float) -> Tensor:
    """mean |d_x c - d_x I|^2 + |d_y c - d_y I|^2, over the next pixel to the right and below."""
    right, below = (Drawn.at(nets, some.place + step).colour for step in _steps(some.place, 1 / unit))
    errors = right - colour - some.across, below - colour - some.down
    return sum(error.square().sum(1).mean() for error in errors)


def rigidity(mapping: Network, place: Tensor, uv: Tensor, distance: float, unit: float) -> Tensor:
    """mean |J^T J| + |(J^T J)^-1|, Frobenius norms. J: by differences to `distance` px to the left and above.

    Least, 2 sqrt(2), where J only turns. Of a 2x2 matrix, |G^-1| = |G| / det G.
    """
    columns = [uv - mapping(place - step) for step in _steps(place, distance / unit)]
    jacobian = torch.stack(columns, dim=2) * unit / (SCALE * distance)  # (p, 2, 2)
    gram = jacobian.mT @ jacobian
    ridged = gram + RIDGE * torch.eye(2)
    determinant = ridged[:, 0, 0] * ridged[:, 1, 1] - ridged[:, 0, 1] * ridged[:, 1, 0]
    return (_norm(gram) + _norm(ridged) / determinant).mean()


def flow(nets: Networks, some: Pixels, drawn: Drawn, unit: float) -> dict[str, Tensor]:
    """Of both directions the mean, over pixels whose flow agrees both ways; a direction without any counts nothing.

    flow: a |M_f(p') - M_f(p)| + (1 - a) |M_b(p') - M_b(p)| in px; alpha flow: |a(p') - a(p)|.
    """
    found = {"flow": some.place.new_zeros(()), "alpha flow": some.place.new_zeros(())}
    for way in range(2):
        own = some.followed[:, way]
        if not own.any():
            continue
        there, alpha = some.moved[own, way], drawn.alpha[own]
        for mapping, uv, seen in zip((nets.foreground, nets.background), drawn.uv, (alpha, 1 - alpha), strict=True):
            length = (mapping(there) - uv[own]).norm(dim=1) * unit / SCALE
            found["flow"] = found["flow"] + 0.5 * (seen[:, 0] * length).mean()
        found["alpha flow"] = found["alpha flow"] + 0.5 * (opacity(nets, there) - alpha).abs().mean()
    return found


def bootstrap(alpha: Tensor, mask: Tensor) -> Tensor:
    """mean -m log a - (1 - m) log (1 - a)."""
    return -(mask * alpha.log() + (1 - mask) * (1 - alpha).log()).mean()


def _steps(like: Tensor, length: float) -> tuple[Tensor, Tensor]:
    """To the right and down."""
    return like.new_tensor([length, 0, 0]), like.new_tensor([0, length, 0])


def _norm(matrices: Tensor) -> Tensor:
    return matrices.square().sum((1, 2)).sqrt()
