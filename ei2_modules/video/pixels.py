"""What a decoded frame shows: upright, as 8 bits of red, green and blue, and what of it is transparent."""

import av
import numpy as np

HDR = {16: "PQ", 18: "HLG"}  # transfer curves of ITU-T H.273


def rgb(frame: av.VideoFrame) -> np.ndarray:
    """(h, w, 3) uint8, converted by swscale, and turned as players turn it: a phone held upright films lying down."""
    return _upright(frame.to_ndarray(format="rgb24"), frame)


def alpha(frame: av.VideoFrame) -> np.ndarray | None:
    """(h, w) uint8, 255 where the frame is opaque; None where its format has no alpha."""
    if not any(component.is_alpha for component in frame.format.components):
        return None
    return _upright(frame.to_ndarray(format="rgba")[..., 3], frame)


def hdr(frame: av.VideoFrame) -> str | None:
    """The name of its transfer curve, where that is one of high dynamic range."""
    return HDR.get(int(frame.color_trc))


def quarter_turns(frame: av.VideoFrame) -> int:
    """Counter-clockwise, 0 to 3. Angles between are not made by cameras; the nearest is taken."""
    return round(frame.rotation / 90) % 4


def _upright(pixels: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    return np.ascontiguousarray(np.rot90(pixels, quarter_turns(frame)))
