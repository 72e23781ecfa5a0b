"""A video file as it is found: which stream holds the pictures, how long it is, how many it has a second.

Nothing is decoded here. A playlist may name other files; those of the network FFmpeg itself refuses to a local one.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ..errors import EI2Error

CONVERT = 'If it plays elsewhere, convert it: ffmpeg -i "{}" -c:v libx264 -pix_fmt yuv420p new.mp4'
SECONDS_OF_STILL = Fraction(1, 25)  # of one picture that does not say how long it is shown


@dataclass(frozen=True)
class Source:
    """A file's facts. Times are seconds from its first picture on; widths and heights are as stored."""

    name: str
    codec: str
    begin: Fraction  # the file's own time of the first picture: broadcasts do not begin at 0
    seconds: Fraction
    rate: Fraction | None  # pictures a second on average, where the file tells
    pixel_aspect: Fraction  # width of a pixel by its height: not 1 on DV and DVD


@contextmanager
def opened(path: Path) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The file and its stream of pictures. Raises EI2Error for what is no video."""
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or error
        size = path.stat().st_size if path.is_file() else 0
        raise EI2Error(
            f"'{path.name}' ({size} bytes) cannot be read as a video: {reason}. {CONVERT.format(path.name)}"
        ) from error
    with container:
        yield container, pictures_of(container, path.name)


def pictures_of(container: InputContainer, name: str) -> VideoStream:
    """The first stream of moving pictures; the cover of a song is none."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        sound = len(container.streams.audio)
        raise EI2Error(f"'{name}' has no pictures: 0 video streams and {sound} of sound. Choose a video file.")
    return videos[0]


def decoder_of(stream: VideoStream) -> av.CodecContext:
    """The stream's own, but for VP8 and VP9 with alpha, which FFmpeg's own decoders leave out."""
    other = {"vp8": "libvpx", "vp9": "libvpx-vp9"}.get(stream.codec_context.name)
    if stream.metadata.get("alpha_mode") != "1" or other not in av.codecs_available:
        return stream.codec_context
    return av.CodecContext.create(other, "r")


def read_source(path: Path) -> Source:
    """The facts of a file. Raises EI2Error for what is no video."""
    with opened(path) as (container, stream):
        base, begin = stream.time_base, stream.start_time or 0
        rate = stream.average_rate or stream.guessed_rate or None
        aspect = stream.sample_aspect_ratio or 1
        name, codec = path.name, stream.codec_context.name
        ticks = stream.duration or _last_tick(container, stream, rate, name) - begin
        seconds = ticks * base if ticks > 0 else (1 / Fraction(rate) if rate else SECONDS_OF_STILL)
    return Source(name, codec, begin * base, seconds, Fraction(rate) if rate else None, Fraction(aspect))


def _last_tick(container: InputContainer, stream: VideoStream, rate: Fraction | None, name: str) -> int:
    """Where the last packet ends, in the stream's time base: some files do not say how long they are."""
    near_end = None  # raw streams cannot be searched, and a failed search would leave them at their end
    if container.duration:
        near_end = int(container.duration / (av.time_base * stream.time_base)) + (stream.start_time or 0)
    last = _last_packet(container, stream, rate, near_end)
    if last is None and container.duration:
        last = _last_packet(container, stream, rate, 0)
    if last is None:
        raise EI2Error(f"'{name}' has no frames: its stream of pictures ({stream.codec_context.name}) is empty.")
    return last


def _last_packet(
    container: InputContainer, stream: VideoStream, rate: Fraction | None, after: int | None
) -> int | None:
    """As `_last_tick`, of the packets from the key frame before `after` on, or of all. None where there are none."""
    one = round(1 / (rate * stream.time_base)) if rate else 0
    last = None
    with suppress(av.error.FFmpegError):  # of a file that is cut off, what came until then counts
        if after is not None:
            container.seek(after, stream=stream)
        for packet in container.demux(stream):
            if packet.size:
                begin = (last or 0) if packet.pts is None else packet.pts  # raw streams have no times
                last = max(last or 0, begin + (packet.duration or one))
    return last
