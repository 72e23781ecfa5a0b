"""Moving scenes: short clips whose content, motion and mask are known exactly."""

from collections.abc import Callable
from dataclasses import replace
from math import cos, pi, sin

from ..errors import EI2Error, require
from .scenes import Scene, Thing, caption
from .vocabulary import COLOURS

FRAMES = 8
SLIM = 0.2  # radius of things that share the picture with others


def _slide(scene: Scene, t: float) -> Scene:
    return scene.change(x=0.24 + 0.5 * t, y=0.4 + 0.2 * t)


def _arc(scene: Scene, t: float) -> Scene:
    return scene.change(x=0.5 - 0.25 * cos(pi * t), y=0.66 - 0.32 * sin(pi * t))


def _grow(scene: Scene, t: float) -> Scene:
    return scene.change(radius=0.14 + 0.17 * t, x=0.45 + 0.1 * t)


def _turn(scene: Scene, t: float) -> Scene:
    return scene.change(angle=scene.things[0].angle + 0.6 * pi * t, x=0.42 + 0.16 * t)


def _pass(scene: Scene, t: float) -> Scene:
    """A second thing comes the other way below."""
    first, *others = scene.things
    first = replace(first, x=0.25 + 0.5 * t, y=0.28, radius=min(first.radius, SLIM))
    second = others[0] if others else Thing("square", _spare(scene), radius=0.15)
    return replace(scene, things=(first, replace(second, x=0.74 - 0.48 * t, y=0.74)))


def _hide(scene: Scene, t: float) -> Scene:
    return replace(scene.change(x=0.22 + 0.56 * t, radius=min(scene.things[0].radius, SLIM)), bar=0.5)


def _light(scene: Scene, t: float) -> Scene:
    turn = 2 * pi * t
    return replace(_slide(scene, t), light=(0.3 * cos(turn), 0.3 * sin(turn)))


MOTIONS: dict[str, Callable[[Scene, float], Scene]] = {
    "slide": _slide,
    "arc": _arc,
    "grow": _grow,
    "turn": _turn,
    "two objects": _pass,
    "behind a bar": _hide,
    "moving light": _light,
}


def moving(scene: Scene, motion: str, frames: int = FRAMES, backwards: bool = False) -> list[Scene]:
    """The frames of a clip: `scene` with its first thing on its way. Raises EI2Error for an unknown motion."""
    require("motion", motion, MOTIONS)
    if frames < 1:
        raise EI2Error(f"{frames} frames are asked for: a clip has at least 1.")
    times = [i / max(frames - 1, 1) for i in range(frames)]
    return [MOTIONS[motion](scene, 1 - t if backwards else t) for t in times]


def clip_caption(clip: list[Scene]) -> str:
    """What the clip shows, as the scenes of training are described."""
    return caption(clip[0], moving=True)


def _spare(scene: Scene) -> str:
    """A colour that is not yet in the scene."""
    return next(name for name in COLOURS if name not in (scene.background, *(t.colour for t in scene.things)))
