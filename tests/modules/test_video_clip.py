"""Real files of every kind: which frames come out, and what is said of those that cannot be read."""

import socket

import numpy as np
import pytest
import torch

from ei2_modules.errors import EI2Error
from ei2_modules.video.clip import Wanted, load
from ei2_modules.video.reader import Reader
from ei2_modules.video.source import read_source

from ..filmed import film, greys, song, turn, which

SPREAD = [10, 12, 15, 17, 20, 22, 25, 27]  # of 10 a second: 8 over two seconds from 1 s on


def wanted(start=1.0, duration=2.0, **others) -> Wanted:
    return Wanted(start, duration, **{"long_side": 0} | others)


KINDS = [
    ("a.mp4", {}),
    ("a.mkv", {}),
    ("a.ts", {}),  # begins at 1.4 s, and a search ends between key frames
    ("a.flv", {"codec": "flv1"}),
    ("a.avi", {"codec": "mpeg4", "qmin": "1", "qmax": "2"}),
    ("a.webm", {"codec": "libvpx-vp9"}),
    ("with spaces 和 中文 é.mp4", {}),
]


@pytest.mark.parametrize("name, how", KINDS)
def test_the_frames_of_a_part(tmp_path, name, how):
    clip = load(film(tmp_path / name, greys(40), **how), wanted())
    assert which(clip.images) == SPREAD and clip.fps == 4
    assert clip.report.startswith("8 frames of 64x48 at 4 fps: 2.00 s\n")
    assert f"\n{name}: 64x48" in clip.report and "\ntaken at 1.00, 1.20, 1.50" in clip.report
    assert clip.mask.shape == (8, 48, 64) and not clip.mask.any()


def test_every_frame_as_decoded_from_the_start(tmp_path):
    """Against the slow way: all frames, read in order."""
    path = film(tmp_path / "a.mp4", greys(40))
    assert which(load(path, wanted(0, 0, frames=40)).images) == list(range(40))
    assert which(load(path, wanted(0, fps=10, frames=40)).images) == list(range(40))
    for start in range(40):
        assert which(load(path, wanted(start / 10, frames=1)).images) == [start]


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_it_seeks(tmp_path, name):
    """Key frames every 12: the frame at 3.5 s needs 12 or a few more, and not all 36."""
    path = film(tmp_path / name, greys(40))
    with Reader(path, read_source(path)) as reader:
        assert reader.at(3.5)[1] == 3.5
        assert reader.decoded < 20


def test_uneven_times(tmp_path):
    """What a player shows: a frame until the next begins."""
    path = film(tmp_path / "a.mkv", greys(7), milliseconds=[0, 100, 200, 1000, 1100, 2000, 2900])
    clip = load(path, wanted(0, 3, frames=6))  # every half second
    assert which(clip.images) == [0, 2, 3, 4, 5, 5]
    assert "1 frame of 6 repeat the one before" in clip.report


@pytest.mark.parametrize("degrees, size", [(0, (48, 64)), (90, (64, 48)), (180, (48, 64)), (270, (64, 48))])
def test_turned(tmp_path, degrees, size):
    pixels = np.zeros((48, 64, 3), np.uint8)
    pixels[:24] = 255  # above; a quarter clockwise: to the right
    clip = load(turn(film(tmp_path / "a.mp4", [pixels] * 4), degrees), wanted(0, 0, frames=1))
    assert clip.images.shape == (1, *size, 3)
    assert (clip.images.mean(dim=3)[0].rot90(degrees // 90)[:20] > 0.9).all(), "turned back, white is above again"
    assert (f"turned by {degrees}° clockwise" in clip.report) == (degrees > 0)


def test_pixels_that_are_not_square(tmp_path):
    path = film(tmp_path / "a.mp4", greys(4), aspect="2:1")
    clip = load(path, wanted(0, 0, frames=1))
    assert clip.images.shape == (1, 48, 128, 3) and "pixels 2 times as wide as high" in clip.report
    assert load(turn(path, 90), wanted(0, 0, frames=1)).images.shape == (1, 64, 24, 3)


ALPHA = [("a.mov", "qtrle", "argb"), ("a.mkv", "ffv1", "bgra"), ("a.webm", "libvpx-vp9", "yuva420p")]


@pytest.mark.parametrize("name, codec, pixels", ALPHA)
def test_alpha(tmp_path, name, codec, pixels):
    """1 where nothing is seen, as of Load Image; padding counts."""
    frame = np.concatenate([greys(1)[0], np.full((48, 64, 1), 255, np.uint8)], axis=2)
    frame[:, :32, 3] = 0
    path = film(tmp_path / name, [frame] * 4, codec=codec, pixels=pixels)
    clip = load(path, wanted(0, 0, frames=2))
    assert (clip.mask[:, :, :31] > 0.98).all() and (clip.mask[:, :, 33:] < 0.02).all()
    assert which(clip.images) == [0, 0] and "has alpha" in clip.report
    padded = load(path, wanted(0, 0, frames=2, fit="pad to square")).mask
    assert (padded[:, :8] == 1).all() and (padded[:, -8:] == 1).all() and (padded[:, 8:-8, 33:] < 0.02).all()


def test_opaque_alpha_is_not_spoken_of(tmp_path):
    frame = np.full((16, 16, 4), 255, np.uint8)
    clip = load(film(tmp_path / "a.mov", [frame] * 4, codec="qtrle", pixels="argb"), wanted(0, 0, frames=1))
    assert "alpha" not in clip.report and not clip.mask.any()


def test_high_dynamic_range_is_said(tmp_path):
    hdr = "log-level=none:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
    how = {"codec": "libx265", "pixels": "yuv420p10le"}
    clip = load(film(tmp_path / "a.mov", greys(4), **how, **{"x265-params": hdr}), wanted(0, 0, frames=2))
    assert "HDR (PQ) and was taken without tone mapping" in clip.report
    plain = load(film(tmp_path / "b.mov", greys(4), **how, **{"x265-params": "log-level=none"}), wanted(0, 0, frames=2))
    assert "HDR" not in plain.report


SIZES = [((1, 1), 512, (512, 512)), ((33, 17), 0, (32, 16)), ((2, 300), 64, (8, 64))]


@pytest.mark.parametrize("stored, long_side, size", SIZES)
def test_odd_sizes(tmp_path, stored, long_side, size):
    path = film(tmp_path / "a.mkv", greys(4, *stored), codec="ffv1", pixels="bgr0")
    clip = load(path, wanted(0, 0, frames=4, long_side=long_side))
    assert clip.images.shape == (4, size[1], size[0], 3) and which(clip.images) == [0, 1, 2, 3]


def test_8k(tmp_path):
    """One frame, in the memory of the small one that comes out."""
    path = film(tmp_path / "a.mkv", [np.full((4320, 7680, 3), 200, np.uint8)], preset="ultrafast")
    clip = load(path, wanted(0, 0, frames=1, long_side=128), free=128 * 72 * 16)
    assert clip.images.shape == (1, 72, 128, 3) and "7680x4320" in clip.report
    with pytest.raises(EI2Error, match=r"1 frames of 7680x4320 take 0\.5 GB of memory, and 0\.1 GB are free"):
        load(path, wanted(0, 0, frames=1), free=10**8)


def test_a_changing_size_keeps_the_first(tmp_path):
    """Two streams one behind the other, as some recorders write them."""
    parts = [film(tmp_path / f"{w}.ts", greys(10, w, 48), codec="mpeg2video", rate=25) for w in (64, 96)]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with Reader(path, read_source(path)) as reader:
        widths = {reader.at(k / 25)[0].width for k in range(30)}
    clip = load(path, wanted(0, 0.7, frames=4))
    assert widths == {64, 96} and clip.images.shape == (4, 48, 64, 3)


def noisy(count=45) -> list[np.ndarray]:
    """Frames whose packets are long enough to be cut."""
    noise = np.random.default_rng(0).integers(-6, 7, (count, 48, 64, 3))
    return [(grey + one).astype(np.uint8) for grey, one in zip(greys(count), noise, strict=True)]


def cut(path, part: float):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def holed(path):
    data = bytearray(path.read_bytes())
    at = len(data) * 6 // 10
    data[at : at + 900] = bytes(900)
    path.write_bytes(data)
    return path


def test_a_file_that_is_cut_off(tmp_path):
    path = cut(film(tmp_path / "a.mp4", noisy(), movflags="faststart"), 0.5)
    assert load(path, wanted(0, 1)).images.shape[0] == 8
    for part in ((0, 0), (4, 0.5)):
        with pytest.raises(EI2Error, match=r"says that it has 4\.50 s, but from [1-4]\.\d\d s on nothing.*cut off"):
            load(path, wanted(*part, frames=4))


def test_a_hole_is_passed_over_and_said(tmp_path):
    clip = load(holed(film(tmp_path / "a.mp4", noisy(), movflags="faststart")), wanted(0, 0))
    assert "broken packets were passed over" in clip.report and which(clip.images)[0] == 0


def written(data: bytes):
    return lambda path: path.write_bytes(data) and path


def without_frames(path):
    data = film(path, greys(9), movflags="empty_moov+frag_keyframe").read_bytes()
    path.write_bytes(data[: data.index(b"moof") - 4])


PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n"
NO_VIDEOS = [
    ("a.mp4", written(b""), r"'a\.mp4' \(0 bytes\) cannot be read as a video.*ffmpeg -i \"a\.mp4\""),
    ("a.mp4", written(b"no video" * 40), r"\(320 bytes\) cannot be read as a video: Invalid data"),
    ("a.m3u8", written(PLAYLIST), "cannot be read as a video"),
    ("a.mp4", lambda path: cut(film(path, noisy()), 0.5), "cannot be read as a video"),
    ("a.mp4", lambda path: None, "cannot be read as a video: No such file"),
    ("a.mp4", without_frames, r"'a\.mp4' has no frames: its stream of pictures \(h264\) is empty"),
    ("a.m4a", song, r"'a\.m4a' has no pictures: 0 video streams and 1 of sound"),
    ("a.mp4", lambda path: song(path, cover=True), "has no pictures: 0 video streams and 1 of sound"),
]


def test_a_playlist_reaches_no_network(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        path = tmp_path / "a.m3u8"
        path.write_bytes(PLAYLIST.replace(b":9/", b":%d/" % server.getsockname()[1]))
        with pytest.raises(EI2Error, match="cannot be read as a video"):
            load(path, wanted())
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("name, make, message", NO_VIDEOS)
def test_what_is_no_video(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(EI2Error, match=message):
        load(tmp_path / name, wanted())


def test_notes(tmp_path):
    path = film(tmp_path / "a.mp4", greys(40))
    far = load(path, wanted(0, 0, frames=4, long_side=128)).report
    assert "the frames are 1.00 s apart" in far and "enlarged 2 times" in far
    assert "the clip ends before duration (9 s) is over" in load(path, wanted(2, 9)).report
    assert "note" not in load(path, wanted()).report


def test_it_can_be_cancelled_and_tells_how_far_it_is(tmp_path):
    path = film(tmp_path / "a.mp4", greys(40))
    given = []
    load(path, wanted(), given=lambda: given.append(1))
    assert len(given) == 8

    def cancel():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(path, wanted(), decoded=cancel)


def test_values(tmp_path):
    clip = load(film(tmp_path / "a.mp4", greys(4)), wanted(0, 0, frames=2))
    assert clip.images.dtype == clip.mask.dtype == torch.float32
    assert clip.images.min() >= 0 and clip.images.max() <= 1
