"""Redraws docs/icon.png and docs/banner.png, which the registry shows, from frames of docs/demo.png."""

from PIL import Image

from .. import ROOT

DOCS = ROOT / "docs"
CELL, GAP, LEFT = 128, 4, 180  # of the demo's picture: pixels of a frame, between frames, of the labels
SOURCE, COLOUR, SHAPE, BACKGROUND = 0, 2, 3, 4  # its rows
ICON, BANNER = (400, 400), (1260, 540)


def main() -> None:
    for name, picture in drawn().items():
        picture.save(DOCS / name, optimize=True)


def drawn() -> dict[str, Image.Image]:
    """Both, by the names of their files."""
    sheet = Image.open(DOCS / "demo.png").convert("RGB")
    icon = [[frame(sheet, SOURCE, 1), frame(sheet, COLOUR, 6)], [frame(sheet, SHAPE, 1), frame(sheet, BACKGROUND, 6)]]
    banner = [[frame(sheet, row, column) for column in range(7)] for row in (SOURCE, COLOUR, SHAPE)]
    return {"icon.png": grid(icon, ICON), "banner.png": grid(banner, BANNER)}


def frame(sheet: Image.Image, row: int, column: int) -> Image.Image:
    x, y = LEFT + column * (CELL + GAP), row * (CELL + GAP)
    return sheet.crop((x, y, x + CELL, y + CELL))


def grid(rows: list[list[Image.Image]], size: tuple[int, int]) -> Image.Image:
    """Frames side by side, scaled to fill the size, with a dark gap between them and half of one around all."""
    width, height = size[0] // len(rows[0]), size[1] // len(rows)
    picture = Image.new("RGB", size, "#111827")
    for y, row in enumerate(rows):
        for x, one in enumerate(row):
            scaled = one.resize((width - GAP, height - GAP), Image.Resampling.LANCZOS)
            picture.paste(scaled, (x * width + GAP // 2, y * height + GAP // 2))
    return picture


if __name__ == "__main__":
    main()
