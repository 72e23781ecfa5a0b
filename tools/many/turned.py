"""Clips of a phone held upright, which are stored lying down: ComfyUI 0.3.75 does not heed that the file says so."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def upright(clip: Path) -> Iterator[Path]:
    """The clip itself, or an upright copy of it for a while. What is no video is for the server to refuse."""
    import av  # here: PyAV is asked for by this alone

    from ..demo import video_files

    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, f"{clip.stem}.mp4")
        try:
            turned = video_files.upright_copy(clip, copy)
        except (av.error.FFmpegError, IndexError):  # IndexError: no video in it
            turned = False
        yield copy if turned else clip
