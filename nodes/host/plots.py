"""Small pictures that nodes show: curves drawn with Pillow, which every ComfyUI has."""

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 512, 150  # pixels: of all pictures, of a curve
INK, FAINT, LINE = "#222222", "#cccccc", "#00798c"
MARGIN = 8
FONT = ImageFont.load_default(13)


def curve(values: list[float], title: str, low: float | None = None, dots: bool = True) -> Image.Image:
    """A line over 1, 2, ..., len(values), with its smallest and largest number written beside it.

    low: where the axis begins, else at the smallest value. dots: the values themselves, behind their running mean.
    Infinite values lie at its end, and what is no number is left out.
    """
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen = ImageDraw.Draw(picture)
    pen.text((MARGIN, 4), title, INK, FONT)
    line = running_mean(values, max(5, len(values) // 20)) if dots else values
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    bottom, top = min(finite) if low is None else low, _high(finite) if dots else max(finite)
    span = max(top - bottom, 1e-9)
    left, right, upper, lower = 52, WIDTH - MARGIN, 28, HEIGHT - 20

    def place(i: int, value: float) -> tuple[float, float]:
        share = min(max((value - bottom) / span, 0), 1)
        return left + (right - left) * i / max(len(values) - 1, 1), lower - (lower - upper) * share

    for value in (bottom, top):
        pen.line([place(0, value), (right, place(0, value)[1])], FAINT)
        pen.text((left - 6, place(0, value)[1]), f"{value:.3g}", INK, FONT, anchor="rm")

    def places(of: list[float]) -> list[tuple[float, float]]:
        return [place(i, value) for i, value in enumerate(of) if not math.isnan(value)]

    for x, y in places(values) if dots else ():
        pen.ellipse([x - 1, y - 1, x + 1, y + 1], FAINT)
    points = places(line)
    pen.line(points if len(points) > 1 else points * 2, LINE, 2)
    for x, y in () if dots else points:
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], LINE)
    pen.text((left, HEIGHT - 17), "1", INK, FONT)
    pen.text((right, HEIGHT - 17), f"{len(values)}", INK, FONT, anchor="ra")
    return picture


def running_mean(values: list[float], reach: int) -> list[float]:
    """Over the last so many, at each."""
    means, total = [], 0.0
    for i, value in enumerate(values):
        total += value - (values[i - reach] if i >= reach else 0.0)
        means.append(total / min(i + 1, reach))
    return means


def _high(values: list[float]) -> float:
    """Nearly the largest: a single high loss must not flatten all others."""
    return sorted(values)[int(0.98 * (len(values) - 1))]


def image(picture: Image.Image) -> torch.Tensor:
    """IMAGE: (1, h, w, 3) in 0..1."""
    return torch.from_numpy(np.array(picture)).float()[None] / 255


def above(*pictures: Image.Image) -> Image.Image:
    """One above the other."""
    joined = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), "white")
    y = 0
    for picture in pictures:
        joined.paste(picture, (0, y))
        y += picture.height
    return joined


def beside(pictures: dict[str, Image.Image]) -> Image.Image:
    """Pictures of one size side by side, WIDTH wide together, each under its name."""
    each = WIDTH // len(pictures)
    parts = {name: p.resize((each, max(1, round(p.height * each / p.width)))) for name, p in pictures.items()}
    joined = Image.new("RGB", (WIDTH, 20 + max(p.height for p in parts.values())), "white")
    for i, (name, picture) in enumerate(parts.items()):
        ImageDraw.Draw(joined).text((i * each + MARGIN, 3), name, INK, FONT)
        joined.paste(picture, (i * each, 20))
    return joined
