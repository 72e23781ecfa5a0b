"""The figure of the quality benchmark: success against preservation, and examples side by side."""

import math
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from tools.server.in_process import pack_alone

from .cases import KINDS, MAIN
from .report import by_clip, interval

label = pack_alone("nodes.host.side_by_side").label
COLOURS = {"per-frame": "#777777", "Tune-A-Video": "#d1495b", "EI² r=2": "#00798c", "EI² r=4": "#66a182"}
SIZE, LEFT, TOP, BOTTOM = 520, 70, 75, 60
ROWS = ("source", "reconstruction", *KINDS)  # of the pictures that the runs keep
FRAMES = (0, 3, 7)
CELL = 96
FONT = ImageFont.load_default(14)


def kept(folder: Path, clip: str, method: str, clip_seed: int) -> Path:
    """Where a run keeps its pictures for the figure."""
    return folder / f"{clip}, {method}, {clip_seed}.png".replace(" ", "_")


def draw(found: list[dict], pictures: Path, target: Path, examples: list[str]) -> None:
    """Write the figure. found: the rows of the main comparison, at least one; examples: names of clips."""
    plot, clip_seed = scatter(found), found[0]["clip_seed"]
    drawn = (example(pictures, clip, kind, clip_seed) for clip, kind in zip(examples, KINDS[1:], strict=False))
    parts = [plot, *(picture for picture in drawn if picture is not None)]
    figure = Image.new("RGB", (sum(p.width for p in parts), max(p.height for p in parts)), "white")
    x = 0
    for part in parts:
        figure.paste(part, (x, 0))
        x += part.width
    figure.save(target)


def plain(name: str) -> str:
    """Pillow's own font has no superscripts."""
    return name.replace("²", "2")


def scatter(found: list[dict]) -> Image.Image:
    """A point a method, with the 95 % intervals over clips."""
    points = {name: (_spread(found, "outside_mae", name, 255), _spread(found, "success", name, 100)) for name in MAIN}
    points = {name: point for name, point in points.items() if all(map(math.isfinite, (point[0][1], point[1][1])))}
    most = 1.15 * max(high for (_, _, high), _ in points.values())
    least = min(90, 10 * int(min(low for _, (low, _, _) in points.values()) / 10))
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(picture)

    def place(x: float, y: float) -> tuple[float, float]:
        across, up = x / most, (y - least) / (100 - least)
        return LEFT + across * (SIZE - LEFT - 20), SIZE - BOTTOM - up * (SIZE - BOTTOM - TOP)

    _axes(pen, place, most, least)
    for i, (name, (across, up)) in enumerate(points.items()):
        _mark(pen, place, COLOURS[name], across, up)
        x, y = LEFT + i * (SIZE - LEFT) / len(MAIN), 45
        pen.ellipse([x, y - 6, x + 12, y + 6], COLOURS[name])
        pen.text((x + 17, y), plain(name), "black", FONT, anchor="lm")
    return picture


def _spread(found: list[dict], measure: str, method: str, scale: float) -> tuple[float, float, float]:
    """(low, mean, high) of the 95 % interval over clips; all the mean if there is one clip."""
    clips = next((clips for key, clips in by_clip(found, measure).items() if key[0] == method), {})
    middle, half = interval([scale * value for value in clips.values()])
    half = 0.0 if math.isnan(half) else half
    return middle - half, middle, middle + half


def _axes(pen, place, most: float, least: int) -> None:
    for value in range(least, 101, 10):
        pen.line([place(0, value), place(most, value)], "#dddddd")
        pen.text((LEFT - 12, place(0, value)[1]), f"{value}", "#555555", FONT, anchor="rm")
    for i in range(5):
        x, _ = place(most * i / 4, least)
        pen.text((x, SIZE - BOTTOM + 10), f"{most * i / 4:.1f}", "#555555", FONT, anchor="mt")
    pen.text((LEFT, 15), "edits done, % of frames", "black", FONT, anchor="lm")
    pen.text((SIZE - 20, SIZE - 18), "change outside the object, 0 to 255 (less is better)", "black", FONT, anchor="rm")


def _mark(pen, place, colour: str, across: tuple, up: tuple) -> None:
    (left, x, right), (low, y, high) = across, up
    pen.line([place(left, y), place(right, y)], colour, 2)
    pen.line([place(x, low), place(x, min(100, high))], colour, 2)
    x, y = place(x, y)
    pen.ellipse([x - 6, y - 6, x + 6, y + 6], colour)


def example(pictures: Path, clip: str, kind: str, clip_seed: int) -> Image.Image | None:
    """Some frames of a clip: the source above, then one edit by every method of the main comparison."""
    paths = {method: kept(pictures, clip, method, clip_seed) for method in MAIN}
    if not all(path.exists() for path in paths.values()):
        return None
    rows = {"source": strip(Image.open(paths[MAIN[0]]), "source")}
    rows |= {method: strip(Image.open(path), kind) for method, path in paths.items()}
    picture = Image.new("RGB", (120 + len(FRAMES) * CELL + 20, len(rows) * (CELL + 2) + 24), "white")
    picture.paste(label(f"{clip[3:]}, edit: {kind}", picture.width, 24, margin=4), (0, 0))
    for i, (name, frames) in enumerate(rows.items()):
        picture.paste(label(plain(name), 120, CELL, margin=4), (0, 24 + i * (CELL + 2)))
        picture.paste(frames, (120, 24 + i * (CELL + 2)))
    return picture


def strip(sheet: Image.Image, row: str) -> Image.Image:
    """FRAMES of one row of a kept picture, enlarged."""
    side = sheet.height // len(ROWS)
    top = ROWS.index(row) * side
    joined = Image.new("RGB", (len(FRAMES) * CELL, CELL))
    for i, frame in enumerate(FRAMES):
        part = sheet.crop((frame * side, top, (frame + 1) * side, top + side))
        joined.paste(part.resize((CELL, CELL), Image.Resampling.LANCZOS), (i * CELL, 0))
    return joined
