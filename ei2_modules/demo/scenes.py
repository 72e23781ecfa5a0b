"""Rendered scenes with known content: coloured shapes on a coloured background, and the captions that describe them.

Shapes are drawn from signed distances, so that edges are smooth and objects move by fractions of a pixel.
"""

from dataclasses import dataclass, replace
from math import cos, pi, sin
from random import Random

import torch
from torch import Tensor

from .vocabulary import COLOURS, PLACES, SHAPES, STYLES, TEXTURES

SIZE = 64  # px, the side of a scene
SMALL, BIG = 0.17, 0.25  # radii below and above which the caption may say so
BAR_WIDTH, BAR_COLOUR = 0.14, (0.5, 0.5, 0.5)
STRIPE, STRIPE_SHARE = 8.0, 0.38  # px, and the share of the second colour
DOT, DOT_RADIUS = 8.0, 2.3  # px
LINE = 3.2  # px, of an outline
NIGHT, NIGHT_TINT, PASTEL = 0.38, (0.0, 0.0, 0.06), 0.5
HELD_OUT = 10  # one in so many combinations of shape, colour and background is never trained on


@dataclass(frozen=True)
class Thing:
    """An object. Lengths are in widths of the picture, from its upper left corner; the angle in radians."""

    shape: str
    colour: str
    x: float = 0.5
    y: float = 0.5
    radius: float = 0.22
    angle: float = 0.0
    texture: str = "plain"


@dataclass(frozen=True)
class Scene:
    """One picture. The first thing is the one the caption is about and the mask shows; later ones lie in front."""

    things: tuple[Thing, ...]
    background: str
    style: str = "plain"
    light: tuple[float, float] = (0.0, 0.0)  # change of the background's brightness along x and along y
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)  # added to the colour of the first thing
    bar: float | None = None  # centre of an upright grey bar in front of everything

    def change(self, **of_first_thing) -> "Scene":
        """The same scene with another first thing."""
        return replace(self, things=(replace(self.things[0], **of_first_thing), *self.things[1:]))


def render(scenes: list[Scene], size: int = SIZE) -> tuple[Tensor, Tensor]:
    """Pictures (n, size, size, 3) in 0..1, and where the first thing is seen, (n, size, size) in 0..1."""
    grid = (torch.arange(size) + 0.5) / size
    y, x = torch.meshgrid(grid, grid, indexing="ij")
    picture = _background(scenes, x, y)
    mask = torch.zeros(len(scenes), size, size)
    for layer in range(max(len(scene.things) for scene in scenes)):
        cover, colour = _draw(scenes, layer, x, y, size)
        picture = picture + cover[..., None] * (colour - picture)
        mask = cover if layer == 0 else mask * (1 - cover)
    bars = _column([-9.0 if scene.bar is None else scene.bar for scene in scenes])
    cover = (0.5 + (BAR_WIDTH / 2 - (x - bars).abs()) * size).clamp(0, 1)
    picture = picture + cover[..., None] * (torch.tensor(BAR_COLOUR) - picture)
    return _develop(scenes, picture), mask * (1 - cover)


def _background(scenes, x: Tensor, y: Tensor) -> Tensor:
    colours = torch.tensor([COLOURS[scene.background] for scene in scenes])[:, None, None]
    along_x, along_y = (_column([scene.light[axis] for scene in scenes]) for axis in (0, 1))
    return colours * (1 + along_x * (x - 0.5) + along_y * (y - 0.5))[..., None]


def _draw(scenes, layer: int, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """How much of each pixel the things of one layer cover, (n, h, w), and their colours, (n, h, w, 3)."""
    none = Thing("circle", "white", x=-9.0)
    things = [scene.things[layer] if layer < len(scene.things) else none for scene in scenes]
    fields = ("x", "y", "radius", "angle")
    centre_x, centre_y, radius, angle = (_column([getattr(thing, name) for thing in things]) for name in fields)
    right, down = x - centre_x, y - centre_y
    turned = right * angle.cos() + down * angle.sin(), down * angle.cos() - right * angle.sin()
    u, v = (axis / radius for axis in turned)
    shapes = torch.stack([distance(u, v) for distance in _DISTANCES.values()])
    kinds = torch.tensor([SHAPES.index(thing.shape) for thing in things])
    distance = shapes[kinds, torch.arange(len(things))] * radius * size  # px, negative inside
    cover = (0.5 - distance).clamp(0, 1)
    line = (0.5 + LINE / 2 - (distance + LINE / 2).abs()).clamp(0, 1)
    outlined = _column([scene.style == "outline" for scene in scenes])
    return torch.where(outlined, line, cover), _colour(scenes, things, layer, turned[0] * size, turned[1] * size)


def _colour(scenes, things: list[Thing], layer: int, u: Tensor, v: Tensor) -> Tensor:
    """Texture in the thing's own directions; u, v in pixels."""
    first = torch.tensor([COLOURS[thing.colour] for thing in things])
    if layer == 0:
        first = first + torch.tensor([scene.shift for scene in scenes])
    second = torch.tensor([COLOURS[second_colour(thing.colour)] for thing in things])
    from_middle = ((v / STRIPE).remainder(1) - 0.5).abs() * STRIPE
    stripes = (0.5 + STRIPE_SHARE * STRIPE / 2 - from_middle).clamp(0, 1)
    column, row = (((axis / DOT).remainder(1) - 0.5) * DOT for axis in (u, v))
    dots = (0.5 + DOT_RADIUS - (column.square() + row.square()).sqrt()).clamp(0, 1)
    kind = _column([TEXTURES.index(thing.texture) for thing in things])
    share = torch.where(kind == 1, stripes, torch.where(kind == 2, dots, torch.zeros(())))[..., None]
    first, second = first[:, None, None], second[:, None, None]
    return first + share * (second - first)


def second_colour(colour: str) -> str:
    """Of stripes and dots on a thing of this colour."""
    return "black" if colour in ("white", "yellow") else "white"


def develop(colours: Tensor, style: str) -> Tensor:
    """What a style makes of colours, (..., 3)."""
    if style == "night":
        return colours * NIGHT + torch.tensor(NIGHT_TINT)
    return colours + PASTEL * (1 - colours) if style == "pastel" else colours


def _develop(scenes, picture: Tensor) -> Tensor:
    return torch.stack([develop(p, scene.style) for p, scene in zip(picture, scenes, strict=True)]).clamp(0, 1)


def _column(values: list) -> Tensor:
    return torch.tensor(values)[:, None, None]


def _circle(u: Tensor, v: Tensor) -> Tensor:
    return (u.square() + v.square()).sqrt() - 0.9


def _square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8


def _triangle(u: Tensor, v: Tensor) -> Tensor:
    side = 0.5 * 3**0.5
    return torch.maximum(v, u.abs() * side - v * 0.5) - 0.5


def _star(u: Tensor, v: Tensor, inner: float = 0.42) -> Tensor:
    fifth = 2 * pi / 5
    angle = (torch.atan2(u, -v) + fifth / 2).remainder(fifth) - fifth / 2
    radius = (u.square() + v.square()).sqrt()
    along, across = radius * angle.cos(), (radius * angle.sin()).abs()
    edge = inner * cos(fifth / 2) - 1, inner * sin(fifth / 2)  # from the tip to the notch
    length = (edge[0] ** 2 + edge[1] ** 2) ** 0.5
    return ((along - 1) * edge[1] - across * edge[0]) / length


def _cross(u: Tensor, v: Tensor, arm: float = 0.34) -> Tensor:
    u, v = u.abs(), v.abs()
    return torch.minimum(torch.maximum(u - 0.95, v - arm), torch.maximum(u - arm, v - 0.95))


_DISTANCES = {"circle": _circle, "square": _square, "triangle": _triangle, "star": _star, "cross": _cross}
assert tuple(_DISTANCES) == SHAPES


def caption(scene: Scene, size: bool = False, place: bool = False, moving: bool = False) -> str:
    """The scene in words. The switches add how big the first thing is, where, and that it moves."""
    first, *others = scene.things
    words = [_sized(first) if size else "", "" if first.texture == "plain" else first.texture, _named(first)]
    text = _article(" ".join(word for word in words if word))
    text += " moving" if moving else ""
    text += f" {PLACES[_place(first)]}" if place and _place(first) else ""
    text += "".join(f" and {_article(_named(thing))}" for thing in others)
    text += " behind a bar" if scene.bar is not None else ""
    text += f" on {_article(scene.background)} background"
    return f"{text} {STYLES[scene.style]}".strip()


def _named(thing: Thing) -> str:
    return f"{thing.colour} {thing.shape}"


def _article(words: str) -> str:
    return f"{'an' if words.startswith('orange') else 'a'} {words}"


def _sized(thing: Thing) -> str:
    return "small" if thing.radius < SMALL else "big" if thing.radius > BIG else ""


def _place(thing: Thing) -> str:
    """The word for where a thing is, or "" where none fits."""
    right, down = thing.x - 0.5, thing.y - 0.5
    if max(abs(right), abs(down)) < 0.08:
        return "middle"
    if max(abs(right), abs(down)) < 0.14 or min(abs(right), abs(down)) > 0.7 * max(abs(right), abs(down)):
        return ""
    if abs(right) > abs(down):
        return "left" if right < 0 else "right"
    return "top" if down < 0 else "bottom"


def held_out(scene: Scene) -> bool:
    """Whether training never sees this combination of shape, colour and background."""
    colours = list(COLOURS)
    return any(
        (37 * (64 * SHAPES.index(t.shape) + 8 * colours.index(t.colour) + colours.index(scene.background)) + 11)
        % 101
        % HELD_OUT
        == 0
        for t in scene.things
    )


def random_scene(random: Random) -> tuple[Scene, str]:
    """A scene to train on and one of its captions: nearly always a single thing."""
    background, *colours = random.sample(list(COLOURS), 3)
    style = random.choices(list(STYLES), (60, 14, 13, 13))[0]
    two = random.random() < 0.1
    things = tuple(_random_thing(random, colour, style) for colour in colours[: 1 + two])
    if two:
        things = _apart(random, things)
    light = tuple(random.uniform(-0.25, 0.25) if random.random() < 0.7 else 0.0 for _ in range(2))
    shift = tuple(random.uniform(-0.04, 0.04) for _ in range(3))
    bar = random.uniform(0.2, 0.8) if not two and random.random() < 0.08 else None
    scene = Scene(things, background, style, light, shift, bar)
    return scene, caption(scene, *(random.random() < share for share in (0.5, 0.45, 0.3)))


def _random_thing(random: Random, colour: str, style: str) -> Thing:
    textures = TEXTURES[:1] if style == "outline" else TEXTURES
    texture = random.choices(textures, (60, 20, 20)[: len(textures)])[0]
    radius = random.uniform(0.13 if texture == "plain" and style != "outline" else 0.18, 0.32)
    room = 0.5 - 0.9 * radius
    angle = random.uniform(-0.3, 0.3) if random.random() < 0.75 else random.uniform(-pi, pi)
    x, y = (0.5 + random.uniform(-room, room) for _ in range(2))
    return Thing(random.choice(SHAPES), colour, x, y, radius, angle, texture)


def _apart(random: Random, things: tuple[Thing, ...]) -> tuple[Thing, ...]:
    """Two smaller things on opposite sides."""
    turn, far = random.uniform(-pi, pi), random.uniform(0.24, 0.3)
    return tuple(
        replace(
            thing,
            x=0.5 + side * far * cos(turn),
            y=0.5 + side * far * sin(turn),
            radius=random.uniform(0.13, 0.2),
            texture="plain" if side < 0 else thing.texture,
        )
        for thing, side in zip(things, (1, -1), strict=True)
    )


def scenes_to_train_on(seed: int, count: int) -> tuple[list[Scene], list[str]]:
    """`count` scenes and captions, none of a held-out combination."""
    random, found = Random(seed), []
    while len(found) < count:
        scene, words = random_scene(random)
        if not held_out(scene):
            found.append((scene, words))
    return [scene for scene, _ in found], [words for _, words in found]
