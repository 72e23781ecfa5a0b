"""Short clips in and out of files, and pictures of them side by side."""

import textwrap
from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ei2_modules.video.pixels import rgb

LABEL, HEAD = 176, 80  # pixels for the words left of a row, above a clip


def read(path: Path) -> list[Image.Image]:
    """All frames."""
    with av.open(str(path)) as container:
        return [upright(frame) for frame in container.decode(video=0)]


def upright(frame: av.VideoFrame) -> Image.Image:
    """As players show it."""
    return Image.fromarray(rgb(frame))


def picture(frame) -> Image.Image:
    """A tensor (h, w, 3) in 0..1 as an image."""
    return Image.fromarray((255 * frame).round().byte().numpy())


def cut(source: Path, target: Path, frames: int, stride: int = 3, rate: int = 8) -> None:
    """Write `frames` frames of a video, `stride` apart where it is long enough, as a video of its own."""
    if frames < 1:
        raise ValueError(f"{frames} frames are asked for: choose at least 1.")
    found = read_some(source, (frames - 1) * stride + 1)
    if len(found) < frames:
        raise ValueError(f"{source} has {len(found)} frames, {frames} are asked for: choose fewer frames.")
    step = (len(found) - 1) // max(frames - 1, 1)
    write(target, [found[i * step] for i in range(frames)], rate)


def read_some(path: Path, limit: int) -> list[Image.Image]:
    """The first frames, `limit` at most."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            found.append(upright(frame))
            if len(found) == limit:
                break
    return found


def upright_copy(source: Path, target: Path) -> bool:
    """Write a video that is stored lying down as players show it; False, and nothing, for one that stands already."""
    with av.open(str(source)) as container:
        frames = container.decode(video=0)
        first = next(frames, None)
        if first is None or not first.rotation:
            return False
        write(target, map(upright, chain([first], frames)), container.streams.video[0].average_rate or 30)
    return True


def write(path: Path, frames: Iterable[Image.Image], rate: float | Fraction) -> None:
    """An H.264 mp4; odd sizes lose a row or column."""
    frames = iter(frames)
    first = next(frames)
    width, height = (side // 2 * 2 for side in first.size)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(rate), options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in chain([first], frames):
            picture = av.VideoFrame.from_ndarray(np.asarray(frame.crop((0, 0, width, height)).convert("RGB")))
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def contact_sheet(rows: list[list[Image.Image]], cell: int = 192, gap: int = 4, labels: Sequence[str] = ()):
    """One row a clip, frames from left to right, each fitted into a cell of its own shape; labels to the left."""
    height = round(cell * rows[0][0].height / rows[0][0].width)
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


def side_by_side(clips: list[list[Image.Image]], labels: list[str], cell: int = 192) -> list[Image.Image]:
    """Frames of one clip that shows several, each below its label."""
    head = contact_sheet([[label(text, cell, HEAD) for text in labels]], cell)
    frames = []
    for shown in zip(*clips, strict=True):
        below = contact_sheet([list(shown)], cell)
        frames.append(Image.new("RGB", (head.width, head.height + below.height), "white"))
        frames[-1].paste(head)
        frames[-1].paste(below, (0, head.height))
    return frames


def label(text: str, width: int, height: int, margin: int = 6) -> Image.Image:
    """Words on white: the first line as a heading, the rest smaller and wrapped."""
    heading, _, rest = text.partition("\n")
    box = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(box)
    draw.text((margin, margin), heading, "black", ImageFont.load_default(16))
    small = ImageFont.load_default(13)
    lines = textwrap.fill(rest, int((width - 2 * margin) / small.getlength("n")))
    draw.multiline_text((margin, margin + 22), lines, "#555555", small)
    return box


def fill(frame: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a frame in another shape, as the workflow's Upscale Image node crops it."""
    scale = max(width / frame.width, height / frame.height)
    big = frame.resize((round(frame.width * scale), round(frame.height * scale)), Image.Resampling.LANCZOS)
    left, top = (big.width - width) // 2, (big.height - height) // 2
    return big.crop((left, top, left + width, top + height))
