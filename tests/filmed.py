"""Videos as cameras, programs and accidents leave them; every frame is grey, and its brightness tells which it is."""

import struct
from fractions import Fraction

import av
import numpy as np
from av.stream import Disposition

DARKEST, STEP = 20, 5  # of frame 0, and from each to the next
ONE = 1 << 16
# degrees clockwise that a player turns the picture by -> the upper left of the matrix in the file
TURNS = {0: (ONE, 0, 0, ONE), 90: (0, ONE, -ONE, 0), 180: (-ONE, 0, 0, -ONE), 270: (0, -ONE, ONE, 0)}


def greys(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [np.full((height, width, 3), DARKEST + STEP * i, np.uint8) for i in range(count)]


def which(images) -> list[int]:
    """(n, h, w, 3) in 0..1 -> the numbers of the frames, by the pixel in the middle."""
    _, h, w, _ = images.shape
    return ((images[:, h // 2, w // 2, 0] * 255 - DARKEST) / STEP).round().int().tolist()


def film(path, frames, rate=10, codec="libx264", pixels="yuv420p", milliseconds=None, movflags="", **options):
    """Write frames, (h, w, 3 or 4) uint8, and give the path. milliseconds: when each begins, if not `rate` a second."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=Fraction(rate), options=options)
        stream.codec_context.gop_size = 12
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        if milliseconds is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixel in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixel, format="rgb24" if pixel.shape[2] == 3 else "rgba")
            if milliseconds is not None:
                frame.pts, frame.time_base = milliseconds[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn(path, degrees: int):
    """Write into an mp4 that players shall turn it, clockwise; gives the path."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = TURNS[degrees]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, ONE << 14)
    path.write_bytes(data)
    return path


def song(path, cover: bool = False):
    """A tenth of a second of silence, with a picture of its cover or without."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        picture = container.add_stream("mjpeg", rate=1) if cover else None
        if cover:
            picture.width = picture.height = 16
            picture.pix_fmt, picture.disposition = "yuvj420p", Disposition.attached_pic
            container.mux(picture.encode(av.VideoFrame.from_ndarray(greys(1, 16, 16)[0])))
            container.mux(picture.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
        silence.sample_rate = 44100
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    return path
