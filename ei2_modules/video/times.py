"""Which moments of a clip are taken, and how fast they are played."""

from fractions import Fraction

from ..errors import EI2Error
from .source import Source


def choose_times(
    source: Source, start: float, duration: float, frames: int, fps: float
) -> tuple[list[Fraction], Fraction]:
    """Times in seconds, and the rate at which they last as long as they did in the clip.

    fps 0: `frames` times spread evenly over `duration` seconds from `start` (0: to the clip's end). Above 0: `frames`
    times, 1/fps apart. Raises EI2Error where the clip has no such part, or not as many pictures there.
    """
    begin, left = _exact(start), source.seconds - _exact(start)
    if left <= 0:
        raise EI2Error(
            f"start is {start:g} s, but '{source.name}' has {_s(source.seconds)} s. Choose a start below that."
        )
    if fps > 0:
        rate = _exact(fps)
        _check_rate(source, rate, begin, left, frames)
    else:
        part = min(_exact(duration) or left, left)
        _check_pictures(source, begin, part, frames)
        rate = frames / part
    return [begin + i / rate for i in range(frames)], rate


def _check_rate(source: Source, fps: Fraction, begin: Fraction, left: Fraction, frames: int) -> None:
    if source.rate and fps > source.rate * Fraction(101, 100):  # 30 of 29.97 are fine
        raise EI2Error(
            f"fps is {float(fps):g}, but '{source.name}' has only {float(source.rate):.4g} pictures a second: some "
            f"would be taken twice. Choose fps {float(source.rate):.4g} or less; 0 spreads the frames over duration."
        )
    if (frames - 1) / fps >= left:
        most = -int(-left * fps // 1)  # rounded up: the last one needs to begin only
        raise EI2Error(
            f"{frames} frames at {float(fps):g} fps reach {_s((frames - 1) / fps)} s, but from {_s(begin)} s on "
            f"'{source.name}' has {_s(left)} s. Choose at most {most} frames, an earlier start, a higher fps, or fps "
            "0, which spreads the frames."
        )


def _check_pictures(source: Source, begin: Fraction, part: Fraction, frames: int) -> None:
    there = part * source.rate if source.rate else Fraction(frames)
    if frames > there + Fraction(1, 2):
        raise EI2Error(
            f"{frames} frames are asked for, but '{source.name}' has about {max(1, round(there))} in the {_s(part)} s "
            f"from {_s(begin)} s on ({float(source.rate):.4g} a second). Choose fewer frames or a longer duration."
        )


def _exact(seconds: float) -> Fraction:
    """0.1 as it is written, not as it is stored."""
    return Fraction(str(seconds))


def _s(seconds: Fraction) -> str:
    return f"{float(seconds):.2f}"
