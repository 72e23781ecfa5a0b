"""A part of a video file as a clip: chosen frames, scaled, with what is transparent, and what was done.

Memory is that of the frames given, and of a few as they are stored: whatever the length of the file.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from ..errors import EI2Error
from .fit import fit, size_for
from .pixels import alpha, quarter_turns, rgb
from .reader import Reader
from .report import Facts, describe
from .source import Source, read_source
from .times import choose_times

PLANES = 4  # red, green, blue, mask
LATE = Fraction(1)  # seconds: some formats do not say how long the last frame is seen


@dataclass(frozen=True)
class Wanted:
    """Which part of a file, and what it is made into: the inputs of Load Clip."""

    start: float = 0.0
    duration: float = 2.0  # seconds; frames far apart have no motion in common
    frames: int = 8  # the paper's
    fps: float = 0.0
    long_side: int = 512  # what SD1.x learnt
    fit: str = "keep aspect"
    multiple: int = 8


@dataclass(frozen=True)
class Clip:
    images: torch.Tensor  # (n, h, w, 3) in 0..1
    mask: torch.Tensor  # (n, h, w) in 0..1: 1 where nothing of the picture is seen, as of ComfyUI's Load Image
    fps: float
    report: str


class Canvas:
    """The clip's tensors. They are made at the first frame, whose shape says theirs; a file may change its own."""

    def __init__(self, source: Source, wanted: Wanted, free: int | None):
        self.source, self.wanted, self.free = source, wanted, free
        self.images = self.mask = None
        self.transparent = False

    def put(self, i: int, frame: av.VideoFrame) -> None:
        """Frame i of the clip."""
        pixels, opaque = rgb(frame), alpha(frame)
        aspect = 1 / self.source.pixel_aspect if quarter_turns(frame) % 2 else self.source.pixel_aspect
        shape = (pixels.shape[1], pixels.shape[0], aspect, self.wanted.fit)
        if self.images is None:
            self._make(frame, *size_for(*shape, self.wanted.long_side, self.wanted.multiple))
            self.fit = fit(*shape, self._size())
        fitted = fit(*shape, self._size())
        _into(self.images[i], fitted.scaled(pixels, 0))
        self.transparent |= opaque is not None and bool(opaque.min() < 255)
        if opaque is not None or fitted.pads:
            opaque = np.full(pixels.shape[:2], 255, np.uint8) if opaque is None else opaque
            _into(self.mask[i], 255 - fitted.scaled(opaque, 0))

    def _make(self, frame: av.VideoFrame, width: int, height: int) -> None:
        n = self.wanted.frames
        _check_memory(n, width, height, self.free)
        self.first, self.images = frame, torch.zeros(n, height, width, 3)
        self.mask = torch.zeros(n, height, width)

    def _size(self) -> tuple[int, int]:
        return self.mask.shape[2], self.mask.shape[1]


def load(
    path: Path, wanted: Wanted, free: int | None = None,
    decoded: Callable[[], None] = lambda: None, given: Callable[[], None] = lambda: None,
) -> Clip:  # fmt: skip
    """Read a clip. `decoded` is called at every frame decoded, and may stop it; `given` at every frame of the clip.

    free: bytes of memory there are. Raises EI2Error for what is no video, or has no such part.
    """
    source = read_source(path)
    times, fps = choose_times(source, wanted.start, wanted.duration, wanted.frames, wanted.fps)
    canvas, begins = Canvas(source, wanted, free), []
    with Reader(path, source, decoded) as reader:
        for i, time in enumerate(times):
            frame, begin = _seen(reader, time)
            canvas.put(i, frame)
            begins.append(begin)
            given()
    facts = Facts(source, canvas.first, canvas.fit, canvas.transparent, times, begins, fps, reader)
    return Clip(canvas.images, canvas.mask, float(fps), describe(facts, wanted.duration))


def _seen(reader: Reader, time: Fraction) -> tuple[av.VideoFrame, Fraction]:
    """The frame seen at a time, and when it begins. Raises EI2Error where the file has ended before."""
    found = reader.at(time)
    end = time if found is None else found[1] + (found[0].duration or 0) * (found[0].time_base or 0)
    if found is None or (reader.ahead is None and time > end + LATE):
        raise EI2Error(
            f"'{reader.source.name}' says that it has {float(reader.source.seconds):.2f} s, but from "
            f"{float(end):.2f} s on nothing can be decoded ({reader.broken} broken packets): it is cut off or "
            "damaged. Choose start and duration before that, or another file."
        )
    return found


def _check_memory(frames: int, width: int, height: int, free: int | None) -> None:
    needed = frames * width * height * PLANES * torch.float32.itemsize
    if free is not None and needed > free:
        raise EI2Error(
            f"{frames} frames of {width}x{height} take {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are "
            "free. Choose fewer frames or a smaller long_side."
        )


def _into(target: torch.Tensor, pixels: np.ndarray) -> None:
    """uint8 -> 0..1, in place."""
    target.copy_(torch.from_numpy(pixels)).div_(255)
