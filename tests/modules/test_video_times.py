"""Which moments of a clip are taken: tables of parts that there are, beside parts that there are not."""

from fractions import Fraction

import pytest

from ei2_modules.errors import EI2Error
from ei2_modules.video.source import Source
from ei2_modules.video.times import choose_times


def source(seconds=6, rate=10) -> Source:
    return Source("a.mp4", "h264", Fraction(0), Fraction(seconds), rate and Fraction(rate), Fraction(1))


# start, duration, frames, fps -> tenths of a second, and the rate to play them at
THERE = [
    ((0, 0.8, 8, 0), range(8), 10),
    ((0, 2, 4, 0), [0, 5, 10, 15], 2),
    ((0.5, 2, 4, 0), [5, 10, 15, 20], 2),
    ((0, 0, 6, 0), range(0, 60, 10), 1),
    ((0, 99, 6, 0), range(0, 60, 10), 1),
    ((5, 0, 5, 0), [50, 52, 54, 56, 58], 5),
    ((5.9, 0, 1, 0), [59], 10),
    ((1, 0, 3, 5), [10, 12, 14], 5),
    ((1, 0.1, 3, 5), [10, 12, 14], 5),  # duration plays no part
    ((0, 0, 60, 10), range(60), 10),
    ((0, 0, 3, 0.4), [0, 25, 50], Fraction(2, 5)),
]


@pytest.mark.parametrize("asked, tenths, rate", THERE)
def test_moments(asked, tenths, rate):
    times, played = choose_times(source(), *asked)
    assert times == [Fraction(t, 10) for t in tenths] and played == rate


NOT_THERE = [
    ((6, 2, 8, 0), r"start is 6 s, but 'a\.mp4' has 6\.00 s"),
    ((1e6, 2, 1, 0), r"start is 1e\+06 s"),
    ((0, 2, 21, 0), r"21 frames are asked for, .* about 20 in the 2\.00 s from 0\.00 s on \(10 a second\)"),
    ((5.9, 2, 2, 0), r"2 frames are asked for, .* about 1 in the 0\.10 s from 5\.90 s on"),
    ((0, 0, 3, 0.3), r"3 frames at 0\.3 fps reach 6\.67 s, .* 0\.00 s on 'a\.mp4' has 6\.00 s.*at most 2 frames"),
    ((5, 0, 8, 5), r"8 frames at 5 fps reach 1\.40 s, .* from 5\.00 s .* has 1\.00 s.*at most 5 frames"),
    ((0, 0, 4, 0.5), r"4 frames at 0\.5 fps reach 6\.00 s.*at most 3 frames"),
    ((0, 0, 2, 11), r"fps is 11, but 'a\.mp4' has only 10 pictures a second"),
]


@pytest.mark.parametrize("asked, message", NOT_THERE)
def test_what_is_not_there(asked, message):
    with pytest.raises(EI2Error, match=message):
        choose_times(source(), *asked)


@pytest.mark.parametrize("said, fps", [(29.97, 30), (None, 500)])
def test_rates_that_pass(said, fps):
    """30 of 29.97, and any of a file that does not tell."""
    assert choose_times(source(rate=said and Fraction("29.97")), 0, 0, 8, fps)[1] == fps
