"""Rendered clips of a textured object before a textured background, with the maps, the alpha and the flow known.

Positions are those of ei2_modules.atlas.maps: pixels from the middle, divided by half the longer side.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ei2_modules.atlas.maps import half, pixels
from ei2_modules.motion.flow import Flow
from ei2_modules.motion.optical_flow import followed

FINE = 3  # rendered at so many times the size, and averaged
REACH = 2.2, 1.6  # units of the background that its texture covers, from the middle
OBJECT = 0.5  # the same of the object
TEXELS = 2  # a pixel of the middle frame


@dataclass(frozen=True)
class Motion:
    """From -1 at the clip's beginning to 1 at its end, about the middle frame."""

    camera: tuple[float, float, float, float, float]  # right, down, zoom, degrees, perspective
    thing: tuple[float, float, float, float]  # right, down, degrees, log of size
    bend: float = 0.0
    light: float = 0.0
    plain: bool = False  # the background hardly has texture


MOTIONS = {
    "slide": Motion((0.12, 0.03, 0.04, 3, 0), (0.22, 0.05, 18, 0.15)),
    "perspective": Motion((0.08, -0.05, 0.02, 7, 0.06), (-0.15, 0.12, -25, 0.1)),
    "fast": Motion((0.38, 0.06, 0.10, -5, 0.03), (0.35, -0.1, 40, 0.3)),
    "bend": Motion((0.12, 0.03, 0.04, 3, 0), (0.22, 0.05, 18, 0.15), bend=0.05),
    "light": Motion((0.12, 0.03, 0.04, 3, 0), (0.22, 0.05, 18, 0.15), light=0.3),
    "plain": Motion((0.08, -0.05, 0.02, 7, 0.06), (-0.15, 0.12, -25, 0.1), plain=True),
}


@dataclass(frozen=True)
class Scene:
    """One clip. Layer 0 is the object, layer 1 the background, as in an atlas."""

    motion: Motion
    frames: int = 24
    size: tuple[int, int] = (144, 256)
    seed: int = 0

    @property
    def middle(self) -> int:
        return self.frames // 2

    def time(self, t: int) -> float:
        return (t - self.middle) / max(self.frames - 1, 1) * 2

    def matrix(self, t: int, layer: int) -> Tensor:
        """(3, 3): from the picture to the layer, homogeneous, float64; the bending comes on top."""
        k = self.time(t)
        return self._thing(k) if layer == 0 else self._camera(k)

    def _camera(self, k: float) -> Tensor:
        right, down, zoom, degrees, perspective = self.motion.camera
        turn, scale = math.radians(degrees) * math.sin(1.2 * k), 1 + zoom * k
        c, s = scale * math.cos(turn), scale * math.sin(turn)
        x, y = right * k + 0.02 * math.sin(3 * k), down * math.sin(1.5 * k)
        return torch.tensor([[c, -s, x], [s, c, y], [perspective * k, -perspective / 2 * k, 1]], dtype=torch.float64)

    def _thing(self, k: float) -> Tensor:
        right, down, degrees, grow = self.motion.thing
        turn, scale = math.radians(degrees) * k, math.exp(-grow * k)
        c, s = scale * math.cos(turn), scale * math.sin(turn)
        x, y = right * k - 0.05, down * math.sin(2 * k)
        rows = [[c, -s, s * y - c * x], [s, c, -s * x - c * y], [0, 0, 1]]
        return torch.tensor(rows, dtype=torch.float64)

    def to_layer(self, t: int, points: Tensor, layer: int) -> Tensor:
        """Points of frame t (..., 2) on the layer."""
        found = _applied(self.matrix(t, layer), points.double())
        return self._bent(found, t, 1) if layer == 0 else found

    def to_picture(self, t: int, points: Tensor, layer: int) -> Tensor:
        """The inverse of `to_layer`."""
        points = self._bent(points.double(), t, -1) if layer == 0 else points.double()
        return _applied(torch.linalg.inv(self.matrix(t, layer)), points)

    def _bent(self, points: Tensor, t: int, sign: int) -> Tensor:
        x, y = points.unbind(-1)
        return torch.stack([x + sign * self.motion.bend * torch.sin(7 * y + 4 * self.time(t)), y], dim=-1)

    def shape(self, points: Tensor) -> Tensor:
        """Alpha of the object (...) at points of its layer: a bump with three lobes, its edge a pixel wide."""
        x, y = points[..., 0] / 0.30, points[..., 1] / 0.24
        angle, radius = torch.atan2(y, x), (x.square() + y.square()).sqrt()
        edge = 1 + 0.22 * torch.sin(3 * angle + 0.5) + 0.1 * torch.sin(5 * angle)
        return torch.sigmoid((edge - radius) * 0.26 * half(self.size)).float()

    def light(self, t: int, points: Tensor) -> Tensor:
        """What all colours are multiplied by, (...)."""
        return (1 + self.motion.light * self.time(t) * (1 + points[..., 0] / 2)).float()

    def textures(self) -> tuple[Tensor, Tensor]:
        """(3, rows, columns) of the object and of the background."""
        unit = half(self.size) * 2 * TEXELS
        thing = painting(2 * self.seed + 1, round(OBJECT * unit), round(OBJECT * unit))
        background = painting(2 * self.seed, *(round(reach * unit) for reach in reversed(REACH)))
        return thing, 0.5 + 0.06 * (background - 0.5) if self.motion.plain else background

    def render(self, textures: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """(frames (n, 3, h, w) in 0..1, alpha of the object (n, 1, h, w)). textures: in the place of its own."""
        thing, background = textures or self.textures()
        h, w = self.size
        points = pixels((h * FINE, w * FINE), torch.zeros((), dtype=torch.float64))
        frames, alphas = [], []
        for t in range(self.frames):
            on_thing, behind = self.to_layer(t, points, 0), self.to_layer(t, points, 1)
            alpha = self.shape(on_thing)
            colour = alpha * _look_up(thing, on_thing / OBJECT) + (1 - alpha) * _look_up(
                background, behind / behind.new_tensor(REACH)
            )
            frame = 0.75 * colour * self.light(t, points)
            frames.append(F.avg_pool2d(frame[None], FINE)[0].clamp(0, 1))
            alphas.append(F.avg_pool2d(alpha[None, None], FINE)[0])
        return torch.stack(frames), torch.stack(alphas)

    def flow(self, alphas: Tensor) -> Flow:
        """The true one, each pixel with what covers more of it."""
        points, parts = pixels(self.size, torch.zeros((), dtype=torch.float64)), ([], [])
        for t in range(self.frames - 1):
            for part, (a, b) in zip(parts, ((t, t + 1), (t + 1, t)), strict=True):
                moved = [self.to_picture(b, self.to_layer(a, points, k), k) - points for k in (0, 1)]
                both = torch.where(alphas[a, 0, :, :, None] > 0.5, *moved)
                part.append((both * half(self.size)).float().permute(2, 0, 1))
        there, back = (torch.stack(part) for part in parts)
        return Flow(there, back, followed(there, back), followed(back, there), "truth")


def painting(seed: int, rows: int, columns: int) -> Tensor:
    """(3, rows, columns) in 0..1: noise of many scales, and blots with sharp edges."""
    generator = torch.Generator().manual_seed(seed)
    picture = torch.full((1, 3, rows, columns), 0.5)
    cell = max(rows, columns) // 2
    while cell >= 4:
        coarse = torch.randn(1, 3, rows // cell + 2, columns // cell + 2, generator=generator)
        picture += 0.09 * F.interpolate(coarse, (rows, columns), mode="bicubic", align_corners=False)
        cell //= 2
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    for _ in range(rows * columns // 4000):
        u = torch.rand(7, generator=generator)
        radius = max(rows, columns) * (0.01 + 0.05 * u[2])
        distance = (((x - u[0] * columns) * (0.6 + 0.8 * u[3])) ** 2 + (y - u[1] * rows) ** 2).sqrt()
        cover = 0.7 * (radius - distance + 0.5).clamp(0, 1)
        picture += cover * (u[4:].view(1, 3, 1, 1) - picture)
    return picture[0].clamp(0.02, 0.98)


def boxes(alphas: Tensor, margin: int = 4) -> Tensor:
    """(n, 1, h, w): the box around the object in every frame, as a rough mask."""
    found = torch.zeros_like(alphas)
    for mask, alpha in zip(found, alphas, strict=True):
        y, x = torch.nonzero(alpha[0] > 0.5, as_tuple=True)
        top, left = max(0, y.min() - margin), max(0, x.min() - margin)
        mask[:, top : y.max() + margin + 1, left : x.max() + margin + 1] = 1
    return found


def _applied(matrix: Tensor, points: Tensor) -> Tensor:
    found = points @ matrix[:, :2].T + matrix[:, 2]
    return found[..., :2] / found[..., 2:]


def _look_up(texture: Tensor, place: Tensor) -> Tensor:
    """(3, h, w) of a texture at place (h, w, 2) in -1..1; beyond it mirrored."""
    mode = {"mode": "bilinear", "padding_mode": "reflection", "align_corners": False}
    return F.grid_sample(texture[None], place.float()[None], **mode)[0]
