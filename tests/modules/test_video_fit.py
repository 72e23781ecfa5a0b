"""Frames into sizes: what is cut, what is padded, and that nothing is stretched or sent through another filter."""

from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from ei2_modules.errors import EI2Error
from ei2_modules.video.fit import Fit, fit, size_for

KEEP, CROP, PAD = "keep aspect", "crop to square", "pad to square"

# width, height, pixel aspect, fit, long side, multiple -> size, box of the frame, box of the result (None: all)
FITS = [
    ((1280, 720, 1, KEEP, 512, 8), (512, 288), None, None),
    ((720, 1280, 1, KEEP, 512, 8), (288, 512), None, None),
    ((640, 640, 1, KEEP, 512, 8), (512, 512), None, None),
    ((1280, 720, 1, KEEP, 0, 8), (1280, 720), None, None),
    ((854, 480, 1, KEEP, 0, 8), (848, 480), (3, 0, 851, 480), None),
    ((1280, 720, 1, KEEP, 516, 8), (512, 288), None, None),
    ((1920, 1080, 1, KEEP, 512, 64), (512, 256), (0, 60, 1920, 1020), None),
    ((1000, 10, 1, KEEP, 512, 8), (512, 8), (180, 0, 820, 10), None),
    ((720, 576, Fraction(16, 15), KEEP, 512, 8), (512, 384), None, None),
    ((720, 576, Fraction(64, 45), KEEP, 512, 8), (512, 288), None, None),
    ((1, 1, 1, KEEP, 512, 8), (512, 512), None, None),
    ((1, 1, 1, KEEP, 0, 8), (8, 8), None, None),
    ((33, 17, 1, KEEP, 0, 8), (32, 16), (0, 0, 33, 17), None),
    ((1280, 720, 1, CROP, 512, 8), (512, 512), (280, 0, 1000, 720), None),
    ((720, 1280, 1, CROP, 512, 8), (512, 512), (0, 280, 720, 1000), None),
    ((1280, 720, 1, CROP, 0, 8), (720, 720), (280, 0, 1000, 720), None),
    ((720, 576, Fraction(64, 45), CROP, 512, 8), (512, 512), (158, 0, 562, 576), None),  # 405 of 576 pixels
    ((1280, 720, 1, PAD, 512, 8), (512, 512), None, (0, 112, 512, 400)),
    ((720, 1280, 1, PAD, 512, 8), (512, 512), None, (112, 0, 400, 512)),
    ((1280, 720, 1, PAD, 0, 8), (1280, 1280), None, (0, 280, 1280, 1000)),
    ((9000, 1, 1, PAD, 512, 8), (512, 512), None, (0, 255, 512, 256)),
]


@pytest.mark.parametrize("asked, size, box, inner", FITS)
def test_boxes(asked, size, box, inner):
    shape = (*asked[:2], Fraction(asked[2]), asked[3])
    assert size_for(*shape, *asked[4:]) == size
    assert fit(*shape, size) == Fit(size, box or (0, 0, *asked[:2]), inner or (0, 0, *size))


@pytest.mark.parametrize("how", [KEEP, CROP, PAD])
def test_a_size_below_the_multiple(how):
    with pytest.raises(EI2Error, match="long_side is 15, but sizes are multiples of 16"):
        size_for(640, 360, Fraction(1), how, 15, 16)


def test_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    middle = Image.fromarray(pixels[:, 5:35])
    assert np.array_equal(
        fit(40, 30, Fraction(1), CROP, (16, 16)).scaled(pixels, 0), middle.resize((16, 16), Image.Resampling.LANCZOS)
    )
    padded = fit(40, 30, Fraction(1), PAD, (16, 16)).scaled(pixels, 7)
    whole = Image.fromarray(pixels).resize((16, 12), Image.Resampling.LANCZOS)
    assert np.array_equal(padded[2:14], whole) and (padded[:2] == 7).all() and (padded[14:] == 7).all()
