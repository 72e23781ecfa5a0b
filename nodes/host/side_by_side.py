"""Clips in one picture: a contact sheet, a panel a clip, and their labels.

Pillow alone, and nothing of ComfyUI, so that the programs beside the pack draw with it too.
"""

import textwrap
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

LABEL = 176  # pixels for the words left of a row
TEXT = 16  # pixels of a heading
MOST_LINES = 6  # of a label: a whole caption may be wired into it
LEAST_LETTERS = 4  # of a line
# Of the system, in this order, for letters that Pillow's own font does not have: it knows ASCII and little more.
FONTS = ("DejaVuSans.ttf", "NotoSans-Regular.ttf", "arial.ttf", "Arial.ttf", "msyh.ttc", "NotoSansCJK-Regular.ttc",
         "PingFang.ttc", "Arial Unicode.ttf")  # fmt: skip


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], cell: int = 192, gap: int = 4, labels: Sequence[str] = ()
) -> Image.Image:
    """One row a clip, frames from left to right, each fitted into a cell of its own shape; labels to the left."""
    height = max(1, round(cell * rows[0][0].height / rows[0][0].width))
    columns = max(len(row) for row in rows)
    left = LABEL + gap if labels else 0
    sheet = Image.new("RGB", (left + columns * (cell + gap) - gap, len(rows) * (height + gap) - gap), "white")
    for y, row in enumerate(rows):
        for x, frame in enumerate(row):
            picture = frame.resize((cell, height), Image.Resampling.LANCZOS)
            sheet.paste(picture, (left + x * (cell + gap), y * (height + gap)))
    for y, text in enumerate(labels):
        sheet.paste(label(text, LABEL, height), (0, y * (height + gap)))
    return sheet


def side_by_side(
    clips: Sequence[Sequence[Image.Image]], labels: Sequence[str], cell: int = 192, size: int = TEXT
) -> list[Image.Image]:
    """Frames of one clip that shows several of equal length, each below its label."""
    head = contact_sheet([headings(labels, cell, size)], cell)
    return [below(head, contact_sheet([shown], cell)) for shown in zip(*clips, strict=True)]


def headings(labels: Sequence[str], cell: int, size: int = TEXT) -> list[Image.Image]:
    """The labels of panels `cell` wide, all as high as the highest."""
    height = max(label(text, cell, size=size).height for text in labels)
    return [label(text, cell, height, size) for text in labels]


def below(head: Image.Image, picture: Image.Image) -> Image.Image:
    """A picture under a head."""
    joined = Image.new("RGB", (max(head.width, picture.width), head.height + picture.height), "white")
    joined.paste(head)
    joined.paste(picture, (0, head.height))
    return joined


def label(text: str, width: int, height: int = 0, size: int = TEXT, margin: int = 6) -> Image.Image:
    """Words on white, wrapped: the first line as a heading, the rest smaller. height: 0 is what the words take."""
    heading, _, rest = text.partition("\n")
    parts, y = [], margin
    for words, pixels, colour in ((heading, size, "black"), (rest, round(0.8 * size), "#555555")):
        words, font = readable(words, pixels)
        lines = wrapped(words, font, width - 2 * margin)
        parts.append(((margin, y), "\n".join(lines), colour, font))
        y += round(1.4 * pixels) * len(lines)
    box = Image.new("RGB", (width, height or y + margin), "white")
    draw = ImageDraw.Draw(box)
    for part in parts:
        draw.multiline_text(*part)
    return box


def wrapped(words: str, font: ImageFont.FreeTypeFont, room: float) -> list[str]:
    """Lines of so many pixels: as many letters as "n" would fit, fewer where they are wider."""
    for letters in range(max(LEAST_LETTERS, int(room / font.getlength("n"))), LEAST_LETTERS - 1, -1):
        lines = textwrap.wrap(words, letters, max_lines=MOST_LINES, placeholder="...")
        if all(font.getlength(line) <= room for line in lines):
            break
    return lines


def readable(text: str, pixels: int) -> tuple[str, ImageFont.FreeTypeFont]:
    """The text, and a font that has all its letters; where no font has, the nearest letters of Pillow's own, or "?"."""
    own = ImageFont.load_default(pixels)
    for font in (own, *system_fonts(pixels)):
        if all(has(font, letter) for letter in set(text)):
            return text, font
    return "".join(letter if has(own, letter) else nearest(own, letter) for letter in text), own


@lru_cache(maxsize=8)
def system_fonts(pixels: int) -> tuple[ImageFont.FreeTypeFont, ...]:
    found = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, pixels))
        except OSError:
            continue
    return tuple(found)


def has(font: ImageFont.FreeTypeFont, letter: str) -> bool:
    """Whether it draws the letter, and not the box that stands for all it does not have."""
    return letter.isspace() or bytes(font.getmask(letter)) != bytes(font.getmask("\uffff"))


def nearest(font: ImageFont.FreeTypeFont, letter: str) -> str:
    """Without its accent, its raised form or its full width: 2 for ², e for é; nothing for an accent alone."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.category(c).startswith("M"))
    return plain if all(has(font, c) for c in plain) else "?"
