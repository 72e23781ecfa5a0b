"""The frames that are seen at given times: seeks where that leads further, and decodes on where it does not.

What must be decoded between a key frame and the frame asked for is decoded and dropped: two are held.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path

import av

from .source import Source, decoder_of, opened

NEAR = Fraction(1, 1000)  # Matroska rounds its times to milliseconds
THREADS = 4  # each holds a frame or more


class Reader:
    """`at(time)` of rising times, in seconds from the first picture. `each` is called for every frame decoded."""

    def __init__(self, path: Path, source: Source, each: Callable[[], None] = lambda: None):
        self.path, self.source, self.each = path, source, each
        self.decoded = self.broken = 0  # frames, packets

    def __enter__(self) -> "Reader":
        with ExitStack() as stack:
            self.container, self.stream = stack.enter_context(opened(self.path))
            self.scout, self.scout_stream = stack.enter_context(opened(self.path))  # seeks to see where that leads
            self.decoder = decoder_of(self.stream)
            self.decoder.thread_type, self.decoder.thread_count = "AUTO", THREADS
            self._begin()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def at(self, time: Fraction) -> tuple[av.VideoFrame, Fraction] | None:
        """The last frame that begins at or before `time`, and when it begins; the first there is, if none does."""
        where = self._landing(time)
        if where is not None:
            self.container.seek(where, stream=self.stream)
            self._begin()
        while self.ahead is not None and (self.seen is None or self.ahead[1] <= time + NEAR):
            self.seen, self.ahead = self.ahead, next(self.frames, None)
        return self.seen

    def _begin(self) -> None:
        self.frames = self._decode()
        self.seen, self.ahead = None, next(self.frames, None)

    def _landing(self, time: Fraction) -> int | None:
        """What to seek to for the frame at `time`; None where decoding on gets there as soon.

        A seek may end behind its aim, where frames are stored in another order than shown: then it aims lower.
        """
        back = Fraction(0)
        while self.ahead is not None and time - back > self.ahead[1]:
            tick = round((time - back + self.source.begin) / self.stream.time_base)
            key = self._key_frame(tick)
            if key is None or key <= self.ahead[1]:
                return None
            if key <= time + NEAR:
                return tick
            back = 2 * back or Fraction(1, 2)
        return None

    def _key_frame(self, tick: int) -> Fraction | None:
        """When the first frame begins that can be decoded after a seek to `tick`."""
        try:
            self.scout.seek(tick, stream=self.scout_stream)
            keys = (p for p in self.scout.demux(self.scout_stream) if p.is_keyframe and p.pts is not None)
            packet = next(keys, None)
        except av.error.FFmpegError:
            return None
        return None if packet is None else packet.pts * packet.time_base - self.source.begin

    def _decode(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Frames with their times, from where the file stands. Packets that cannot be decoded are counted."""
        time = -self._step()
        for packet in self._packets():
            try:
                frames = self.decoder.decode(packet)
            except av.error.FFmpegError:
                self.broken += 1
                continue
            for frame in frames:
                self.each()
                self.decoded += 1
                known = frame.pts is not None
                time = frame.pts * frame.time_base - self.source.begin if known else time + self._step()
                yield frame, time

    def _packets(self) -> Iterator[av.Packet]:
        """Until the file ends, or cannot be read on."""
        try:
            yield from self.container.demux(self.stream)
        except av.error.FFmpegError:
            self.broken += 1

    def _step(self) -> Fraction:
        """Between two frames of a stream without times, which cannot be searched either."""
        return 1 / (self.source.rate or Fraction(25))
