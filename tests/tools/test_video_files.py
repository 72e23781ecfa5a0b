"""Videos as a phone writes them: stored lying down, with a note that says how to turn them."""

import struct

import numpy as np
import pytest
from PIL import Image

from tools.demo import video_files
from tools.many.turned import upright

ONE = 1 << 16
# degrees clockwise that a player turns the picture by -> the upper left of the matrix in the file
TURNS = {0: (ONE, 0, 0, ONE), 90: (0, ONE, -ONE, 0), 180: (-ONE, 0, 0, -ONE), 270: (0, -ONE, ONE, 0)}


def filmed(path, turn: int):
    """Two frames, white above and black below as a player shows them."""
    picture = np.zeros((64, 32, 3), np.uint8)
    picture[:32] = 255
    video_files.write(path, [Image.fromarray(picture).rotate(turn, expand=True)] * 2, 8)
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = TURNS[turn]
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def stands(picture: Image.Image) -> bool:
    pixels = np.asarray(picture.convert("L"))
    return pixels.shape == (64, 32) and pixels[:24].mean() > 240 and pixels[40:].mean() < 15


@pytest.mark.parametrize("turn", TURNS)
def test_frames_are_read_as_players_show_them(tmp_path, turn):
    path = filmed(tmp_path / "phone.mp4", turn)
    assert all(map(stands, [*video_files.read(path), *video_files.read_some(path, 1)]))
    video_files.cut(path, tmp_path / "cut.mp4", 1)
    assert stands(video_files.read(tmp_path / "cut.mp4")[0])


@pytest.mark.parametrize("turn", TURNS)
def test_a_server_gets_an_upright_clip(tmp_path, turn):
    path = filmed(tmp_path / "phone.mp4", turn)
    with upright(path) as given:
        assert (given == path) == (turn == 0)
        assert all(map(stands, video_files.read(given)))
    assert path.exists() and (turn == 0 or not given.exists())


@pytest.mark.parametrize("data", [b"", b"no video"])
def test_what_is_no_video_goes_as_it_is(tmp_path, data):
    path = tmp_path / "a.mp4"
    path.write_bytes(data)
    with upright(path) as given:
        assert given == path
