"""The figure of the quality benchmark: success against preservation, and examples side by side."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from quality_cases import KINDS, MAIN
from quality_report import by_clip, interval
from video_files import label

COLOURS = {"per-frame": "#777777", "Tune-A-Video": "#d1495b", "EI² r=2": "#00798c", "EI² r=4": "#66a182"}
SIZE, LEFT, TOP, BOTTOM = 520, 70, 40, 60
ROWS = ("source", "reconstruction", *KINDS)  # of the pictures that the runs keep
FRAMES = (0, 3, 7)
CELL = 96


def draw(found: list[dict], pictures: Path, target: Path, examples: list[str]) -> None:
    """Write the figure. found: the rows of the main comparison; examples: names of clips."""
    plot = scatter(found)
    right = [example(pictures, clip, kind) for clip, kind in zip(examples, KINDS[1:], strict=False)]
    right = [picture for picture in right if picture is not None]
    width = plot.width + max((p.width for p in right), default=0)
    figure = Image.new("RGB", (width, max(plot.height, sum(p.height for p in right))), "white")
    figure.paste(plot)
    y = 0
    for picture in right:
        figure.paste(picture, (plot.width, y))
        y += picture.height
    figure.save(target)


def scatter(found: list[dict]) -> Image.Image:
    """A point a method, with the 95 % intervals over clips."""
    success, error = by_clip(found, "success"), by_clip(found, "outside_mae")
    points = {}
    for key in success:
        if key[0] in COLOURS:
            across = interval([255 * v for v in error[key].values()])
            points[key[0]] = across, interval([100 * v for v in success[key].values()])
    most = max(x + (0 if half != half else half) for (x, half), _ in points.values()) * 1.15
    least = min(y - (0 if half != half else half) for _, (y, half) in points.values())
    least = min(90, 10 * int(least / 10))
    picture = Image.new("RGB", (SIZE, SIZE), "white")
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(14)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + x / most * (SIZE - LEFT - 20),
            SIZE - BOTTOM - (y - least) / (100 - least) * (SIZE - BOTTOM - TOP),
        )

    for value in range(least, 101, 10):
        pen.line([place(0, value), place(most, value)], "#dddddd")
        pen.text((LEFT - 12, place(0, value)[1]), f"{value}", "#555555", font, anchor="rm")
    for i in range(5):
        pen.text((place(most * i / 4, 0)[0], SIZE - BOTTOM + 10), f"{most * i / 4:.1f}", "#555555", font, anchor="mt")
    pen.text((LEFT, TOP / 2), "edits done, % of frames", "black", font, anchor="lm")
    pen.text((SIZE - 20, SIZE - 18), "change outside the object, 0 to 255 (less is better)", "black", font, anchor="rm")
    for i, (name, ((x, half_x), (y, half_y))) in enumerate(points.items()):
        for a, b in (((x - half_x, y), (x + half_x, y)), ((x, y - half_y), (x, min(100, y + half_y)))):
            if half_x == half_x:
                pen.line([place(*a), place(*b)], COLOURS[name], 2)
        centre = place(x, y)
        pen.ellipse([centre[0] - 6, centre[1] - 6, centre[0] + 6, centre[1] + 6], COLOURS[name])
        pen.ellipse([SIZE - 170, SIZE - 200 + 24 * i, SIZE - 158, SIZE - 188 + 24 * i], COLOURS[name])
        pen.text((SIZE - 150, SIZE - 194 + 24 * i), name, "black", font, anchor="lm")
    return picture


def example(pictures: Path, clip: str, kind: str) -> Image.Image | None:
    """Some frames of a clip: the source above, then one edit by every method of the main comparison."""
    rows = {}
    for method in MAIN:
        path = next(iter(pictures.glob(f"{clip}, {method}, *.png".replace(" ", "_"))), None)
        if path is None:
            return None
        sheet = Image.open(path)
        rows.setdefault("source", strip(sheet, "source"))
        rows[method] = strip(sheet, kind)
    picture = Image.new("RGB", (120 + len(FRAMES) * CELL + 20, len(rows) * (CELL + 2) + 24), "white")
    picture.paste(label(f"{clip[3:]}, edit: {kind}", picture.width, 24, 4), (0, 0))
    for i, (name, frames) in enumerate(rows.items()):
        picture.paste(label(name, 120, CELL, 4), (0, 24 + i * (CELL + 2)))
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
