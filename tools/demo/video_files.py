"""Short clips in and out of files."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image

from ei2_modules.video.pixels import rgb


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


def fill(frame: Image.Image, width: int, height: int) -> Image.Image:
    """The middle of a frame in another shape, as the workflow's Upscale Image node crops it."""
    scale = max(width / frame.width, height / frame.height)
    big = frame.resize((round(frame.width * scale), round(frame.height * scale)), Image.Resampling.LANCZOS)
    left, top = (big.width - width) // 2, (big.height - height) // 2
    return big.crop((left, top, left + width, top + height))
