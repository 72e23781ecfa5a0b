"""What Load Clip did with a file, in words."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av

from .fit import Fit
from .pixels import hdr, quarter_turns
from .reader import Reader
from .source import Source

FAR = Fraction(1, 2)  # seconds between frames above which little of a motion is left
MOST_TIMES = 16  # more are not read


@dataclass(frozen=True)
class Facts:
    """What was found and done. Times are seconds from the file's first picture on."""

    source: Source
    first: av.VideoFrame
    fit: Fit  # of the first frame
    transparent: bool  # some of it
    times: list[Fraction]  # asked for
    begins: list[Fraction]  # of the frames that are seen then
    fps: Fraction  # to be played at
    reader: Reader  # what it decoded


def describe(facts: Facts, duration: float) -> str:
    """The result and what the user may not expect come first: a node shows two or three lines. Then how it came about.

    duration: as wanted, 0 for all.
    """
    count, (width, height) = len(facts.times), facts.fit.size
    notes = (*_of_times(facts, duration), *_of_file(facts), *_of_size(facts.fit))
    lines = [
        f"{_frames(count)} of {width}x{height} at {float(facts.fps):.4g} fps: {float(count / facts.fps):.2f} s",
        *(f"note: {note}" for note in notes),
        _file(facts.source, facts.first),
        f"taken at {_times(facts.begins)} s",
        _picture(facts.fit),
        f"{_frames(facts.reader.decoded)} decoded",
    ]
    return "\n".join(lines)


def _file(source: Source, first: av.VideoFrame) -> str:
    rate = f"{float(source.rate):.4g} fps" if source.rate else "fps not said"
    turned = f", turned by {-90 * quarter_turns(first) % 360}° clockwise" if quarter_turns(first) else ""
    wide = f", pixels {float(source.pixel_aspect):.3g} times as wide as high" if source.pixel_aspect != 1 else ""
    stored = f"{first.width}x{first.height}"
    return f"{source.name}: {stored} {source.codec}, {rate}, {float(source.seconds):.2f} s{turned}{wide}"


def _frames(count: int) -> str:
    return f"{count} frame" if count == 1 else f"{count} frames"


def _times(begins: list[Fraction]) -> str:
    shown = [f"{float(time):.2f}" for time in begins]
    if len(shown) > MOST_TIMES:
        shown = [*shown[: MOST_TIMES - 2], "…", shown[-1]]
    return ", ".join(shown)


def _picture(fitted: Fit) -> str:
    (left, top, right, bottom), (x, y, x_end, y_end) = fitted.box, fitted.inner
    cut = f"{right - left}x{bottom - top}"
    part = f"the middle {cut} of {right + left}x{bottom + top}" if left or top else f"all of {cut}"
    black = f" as {x_end - x}x{y_end - y} on black" if fitted.pads else ""
    return f"{part}{black}"


def _of_times(facts: Facts, duration: float) -> Iterator[str]:
    n, step = len(facts.times), 1 / facts.fps
    if repeats := n - len(set(facts.begins)):
        yield f"{_frames(repeats)} of {n} repeat the one before: the clip shows nothing new in between."
    if n > 1 and step > FAR:
        yield (
            f"the frames are {float(step):.2f} s apart: where things move, little ties them together. "
            "Choose a shorter duration or more frames."
        )
    if duration > n * step and facts.times[0] + n * step == facts.source.seconds:
        yield f"the clip ends before duration ({duration:g} s) is over."


def _of_file(facts: Facts) -> Iterator[str]:
    if facts.transparent:
        yield "the file has alpha: MASK is 1 where it is transparent, and IMAGE has the colours stored there."
    if curve := hdr(facts.first):
        yield (
            f"the file is HDR ({curve}) and was taken without tone mapping: its colours look flat. For better ones "
            "convert it to SDR first."
        )
    if facts.reader.broken:
        yield f"{facts.reader.broken} broken packets were passed over."


def _of_size(fitted: Fit) -> Iterator[str]:
    (left, top, right, bottom), (x, y, x_end, y_end) = fitted.box, fitted.inner
    times = min((x_end - x) / (right - left), (y_end - y) / (bottom - top))
    if times > 1:
        yield f"the frames are enlarged {times:.3g} times: nothing is sharper for it."
