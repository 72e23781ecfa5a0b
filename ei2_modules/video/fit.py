"""A frame of any size into the size a model takes: the middle is cut out or the frame is set on black, never stretched.

Scaled as ComfyUI's Upscale Image does with lanczos, on 8 bits.
"""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from PIL import Image

from ..errors import EI2Error

FITS = ("keep aspect", "crop to square", "pad to square")
Box = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True)
class Fit:
    """How frames of one size are brought to another: `box` of the frame fills `inner` of the result."""

    size: tuple[int, int]  # width, height
    box: Box
    inner: Box

    @property
    def pads(self) -> bool:
        return self.inner != (0, 0, *self.size)

    def scaled(self, pixels: np.ndarray, outside: int) -> np.ndarray:
        """(h, w, ...) uint8 -> (height, width, ...), `outside` where the frame does not reach."""
        left, top, right, bottom = self.inner
        x, y, x_end, y_end = self.box
        picture = Image.fromarray(pixels[y:y_end, x:x_end])
        filled = np.array(picture.resize((right - left, bottom - top), Image.Resampling.LANCZOS))
        if not self.pads:
            return filled
        whole = np.full((self.size[1], self.size[0], *pixels.shape[2:]), outside, np.uint8)
        whole[top:bottom, left:right] = filled
        return whole


def size_for(
    width: int, height: int, pixel_aspect: Fraction, how: str, long_side: int, multiple: int
) -> tuple[int, int]:
    """(width, height) of a clip made of frames of this size, both multiples of `multiple`.

    how: one of FITS. long_side: rounded down; 0 for that of the frame. pixel_aspect: width of a pixel by its height.
    Raises EI2Error for a long side below the multiple.
    """
    shown = width * pixel_aspect  # in pixels as high as wide
    own = min(shown, height) if how == "crop to square" else max(shown, height)
    long = _down(long_side or max(multiple, int(own)), multiple)
    if how != "keep aspect":
        return long, long
    short = max(1, round(long * min(shown, height) / max(shown, height) / multiple)) * multiple
    return (long, short) if shown >= height else (short, long)


def fit(width: int, height: int, pixel_aspect: Fraction, how: str, size: tuple[int, int]) -> Fit:
    """A frame of this size into a clip of `size`: whole with "pad to square", else the largest middle that fills it."""
    shown = width * pixel_aspect
    if how != "pad to square":
        return Fit(size, _middle(width, height, Fraction(*size) * height / shown), (0, 0, *size))
    inner = [max(1, round(side * size[0] / max(shown, height))) for side in (shown, height)]
    left, top = ((size[0] - side) // 2 for side in inner)
    return Fit(size, (0, 0, width, height), (left, top, left + inner[0], top + inner[1]))


def _middle(width: int, height: int, wider: Fraction) -> Box:
    """The largest box around the middle whose aspect is `wider` times the frame's; cut alike on both sides."""
    x = round((width - width * wider) / 2) if wider < 1 else 0
    y = round((height - height / wider) / 2) if wider > 1 else 0
    x, y = min(x, (width - 1) // 2), min(y, (height - 1) // 2)  # one pixel is left
    return x, y, width - x, height - y


def _down(side: int, multiple: int) -> int:
    if side < multiple:
        raise EI2Error(f"long_side is {side}, but sizes are multiples of {multiple} here. Choose {multiple} or more.")
    return side // multiple * multiple
