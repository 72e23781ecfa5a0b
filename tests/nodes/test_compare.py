"""EI² Compare: what each view shows, pixel by pixel; clips that do not agree; the files."""

import json

import av
import comfy_api.latest
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

from tools.demo import video_files
from tools.server.in_process import pack

compare, comparison = pack("nodes.compare"), pack("nodes.host.comparison")
looping_video, pictures = pack("nodes.host.files.looping_video"), pack("nodes.host.side_by_side")
EI2Error = pack("ei2_modules.errors").EI2Error

RED, GREEN, BLUE, GREY = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.5)
COLOURS = {"a": RED, "b": GREEN, "c": BLUE, "d": GREY}


def film(colour=RED, frames=3, width=16, height=16):
    return torch.tensor(colour).expand(frames, height, width, 3).clone()


def panels(count=2, frames=3, labels="abcd"):
    return comparison.equal({name: film(COLOURS[name], frames) for name in "abcd"[:count]}, labels[:count])


def at(picture, x: float, y: float) -> tuple:
    """The colour at shares of width and height, as 0, 0.5 or 1 each."""
    w, h = picture.size
    return tuple(round(2 * v / 255) / 2 for v in picture.getpixel((int(x * w), int(y * h))))


# What is shown


@pytest.mark.parametrize("count", [2, 3, 4])
def test_side_by_side_every_clip_has_its_panel(count):
    frames = comparison.across(panels(count))
    assert len(frames) == 3
    assert [at(frames[0], (k + 0.5) / count, 0.9) for k in range(count)] == list(COLOURS.values())[:count]


@pytest.mark.parametrize(("columns", "rows"), [(2, 2), (4, 1), (1, 4), (3, 2)])
def test_a_grid_is_filled_row_by_row(columns, rows):
    frames = comparison.grid(panels(4), columns)
    assert len(frames) == 3
    places = [((k % columns + 0.5) / columns, (k // columns + 0.9) / rows) for k in range(4)]
    assert [at(frames[0], *place) for place in places] == list(COLOURS.values())


@pytest.mark.parametrize("columns", [1, 2])
def test_a_grid_of_large_clips_still_plays(columns):
    large = comparison.equal({name: film(COLOURS[name], 1, 1280, 720) for name in COLOURS}, list(COLOURS))
    (frame,) = comparison.grid(large, columns)
    labels = 4 // columns * 100  # pixels, at the most
    assert frame.width <= comparison.MOST_WIDTH and frame.height <= comparison.MOST_HEIGHT + labels


@pytest.mark.parametrize(("count", "frames", "fps"), [(2, 3, 8), (3, 8, 8), (4, 1, 2), (2, 40, 8)])
def test_a_wipe_shows_every_clip_alone_and_two_at_a_line(count, frames, fps):
    shown = comparison.wipe(panels(count, frames), fps)
    assert len(shown) % frames == 0 and len(shown) >= count * comparison.WIPE_SECONDS * fps
    seen = [(at(p, 0.02, 0.9), at(p, 0.98, 0.9)) for p in shown]
    colours = list(COLOURS.values())[:count]
    after = [*colours[1:], colours[0]]
    assert set(seen) == {(c, c) for c in colours} | {(new, old) for old, new in zip(colours, after, strict=True)}
    assert seen[0] == (colours[0], colours[0])


def test_a_strip_is_cut_into_equal_parts():
    (first, *_) = comparison.strip(panels(3))
    width = first.width // 3
    assert first.width == 3 * width
    assert [at(first.crop((k * width, 0, (k + 1) * width, first.height)), x, 0.5) for k in range(3) for x in (0, 0.99)]\
        == [c for c in (RED, GREEN, BLUE) for _ in range(2)]  # fmt: skip


@pytest.mark.parametrize(
    ("other", "gain", "drawn", "mean"),
    [
        ((0.5, 0.5, 0.5), 4.0, 0, "mean 0.0 of 255"),
        ((0.6, 0.5, 0.5), 4.0, 100, "mean 8.3 of 255"),
        ((0.4, 0.5, 0.5), 1.0, 26, "mean 8.7 of 255"),
        ((1.0, 0.5, 0.5), 64.0, 255, "mean 42.3 of 255"),
    ],
)
def test_a_difference_is_that_of_pixels(other, gain, drawn, mean):
    both = comparison.equal({"a": film(GREY), "b": film(other)}, ["source\nwords", "edit\nwords"])
    shown = comparison.differences(both, gain)
    assert shown.clips[0] == both.clips[0]
    assert shown.clips[1][0].getextrema() == ((drawn, drawn), (0, 0), (0, 0))
    assert shown.labels == ["source\nwords", f"edit - source\n{mean}, drawn times {gain:g}"]


@pytest.mark.parametrize(("frames", "chosen"), [(1, [0]), (3, [0, 1, 2]), (15, [0, 2, 4, 6, 8, 10, 12, 14])])
def test_the_sheet_has_a_row_a_clip_spread_over_its_length(frames, chosen):
    ramp = torch.linspace(0, 1, frames).reshape(-1, 1, 1, 1).expand(-1, 16, 16, 3)
    sheet = comparison.sheet(comparison.equal({"a": ramp, "b": film(BLUE, frames)}, "ab"))
    cell, left = comparison.LEAST_PANEL + 4, pictures.LABEL + 4
    assert sheet.size == (left + len(chosen) * cell - 4, 2 * cell - 4)
    greys = [sheet.getpixel((left + cell // 2 + i * cell, cell // 2))[0] for i in range(len(chosen))]
    assert greys == [round(255 * float(ramp[i, 0, 0, 0])) for i in chosen]
    assert sheet.getpixel((left + cell // 2, cell + cell // 2)) == (0, 0, 255)


def ink(picture) -> int:
    return int((np.asarray(picture.convert("L")) < 128).sum())


def test_labels_are_drawn_and_end():
    short, long = pictures.label("edit", 192), pictures.label("edit\n" + "a red circle " * 500, 192)
    assert 0 < ink(short) < ink(long)
    assert ink(pictures.label("", 192)) == 0
    assert short.height < long.height < 192


# Clips that do not agree


@pytest.mark.parametrize(
    ("change", "notes"),
    [
        ({}, []),
        ({"frames": 5}, ["b has 5 frames; the first 3 are shown, as many as the shortest clip has"]),
        ({"frames": 2}, ["a has 3 frames; the first 2 are shown, as many as the shortest clip has"]),
        ({"width": 32}, ["b is 32x16 and is fitted into 16x16, the size of the first clip"]),
        ({"width": 1, "height": 1}, ["b is 1x1 and is fitted into 16x16, the size of the first clip"]),
    ],
)
def test_others_are_made_equal_and_it_is_said(change, notes):
    found = comparison.equal({"a": film(), "b": film(GREEN, **change)}, "ab")
    assert found.notes == notes
    assert {len(clip) for clip in found.clips} == {min(3, change.get("frames", 3))}
    assert {frame.size for clip in found.clips for frame in clip} == {(16, 16)}
    assert notes == comparison.report(found, torch.zeros(3, 2, 2, 3), "wipe", 8).splitlines()[1:]


def test_another_shape_is_not_distorted():
    (_, (wide, *_)) = comparison.equal({"a": film(), "b": film(GREEN, width=32)}, "ab").clips
    assert [at(wide, 0.5, y) for y in (0.1, 0.5, 0.9)] == [(0, 0, 0), GREEN, (0, 0, 0)]


@pytest.mark.parametrize(("channels", "seen"), [(1, (1.0, 1.0, 1.0)), (3, (1.0, 0.0, 0.0)), (4, (1.0, 0.0, 0.0))])
def test_grey_and_alpha(channels, seen):
    clip = torch.zeros(2, 16, 16, channels)
    clip[..., 0] = 1
    assert at(comparison.equal({"a": clip, "b": film()}, "ab").clips[0][0], 0.5, 0.5) == seen


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_black_and_said(value):
    clip = film()
    clip[1] = value
    found = comparison.equal({"a": film(), "b": clip}, "ab")
    assert found.notes == ["b: 1 of 3 frames hold values that are not finite; they are drawn black"]
    assert [at(frame, 0.5, 0.5) for frame in found.clips[1]] == [RED, (0, 0, 0), RED]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("clip", "b is no IMAGE: it must be a tensor of (frames, height, width, channels), and this is a str"),
        (torch.zeros(16, 16, 3), "this is a tensor of shape (16, 16, 3)"),
        (torch.zeros(0, 16, 16, 3), "b holds nothing to show: 0 frames of 16x16"),
        (torch.zeros(2, 0, 16, 3), "b holds nothing to show: 2 frames of 16x0"),
    ],
)
def test_what_is_no_clip_is_refused_by_name(wrong, said):
    with pytest.raises(EI2Error) as error:
        comparison.equal({"a": film(), "b": wrong}, "ab")
    assert said in str(error.value)


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (17, 9), (5000, 3)])
@pytest.mark.parametrize("view", ["across", "strip", "wipe"])
def test_any_size_gives_a_video_that_players_take(view, size):
    clips = {name: film(width=size[0], height=size[1], frames=1) for name in "abcd"}
    shown = getattr(comparison, view)(comparison.equal(clips, "abcd"), *[1] * (view == "wipe"))
    n, h, w, _ = comparison.images(shown).shape
    assert n == len(shown) and w % 2 == h % 2 == 0
    assert 2 <= w <= comparison.MOST_WIDTH + 12 and 2 <= h <= comparison.MOST_HEIGHT + 200


# The node and its files


@pytest.fixture
def saved(folders, monkeypatch):
    """Runs the node; gives (its outputs, its ui, a function from a file of the ui to its path)."""
    monkeypatch.setattr(folder_paths, "temp_directory", str(folders / "temp"))

    def run(**changes):
        inputs = {"a": film(), "b": film(GREEN), "label_a": "source", "label_b": "", "mode": "side by side", "fps": 4}
        done = compare.Compare.execute(**(inputs | changes))
        return done.args, done.ui, lambda file: folders / file["type"] / file["subfolder"] / file["filename"]

    return run


@pytest.mark.parametrize("mode", compare.MODES)
def test_a_looping_video_and_a_sheet_are_kept(saved, mode):
    (images, sheet), ui, path = saved(mode=mode)
    (video,), (picture,) = ui["images"], ui["sheet"]
    assert (video["filename"], video["type"]) == ("EI2_compare_00001_.mp4", "output")
    assert (picture["filename"], picture["type"]) == ("EI2_compare_sheet_00001_.png", "output")
    frames, n = video_files.read(path(video)), len(images)
    assert len(frames) % n == 0 and 8 <= len(frames) < 8 + n  # 2 seconds
    assert n == (12 if mode == "wipe" else 3)
    for frame, image in zip(frames, [*images] * (len(frames) // n), strict=True):
        assert np.abs(np.asarray(frame, float) - 255 * image.numpy()).mean() < 8  # what H.264 loses
    drawn = torch.from_numpy(np.array(Image.open(path(picture)).convert("RGB"))) / 255
    assert torch.allclose(drawn, sheet[0], atol=1 / 255)
    assert ui["animated"] == (True,) and ("strip" in ui) == (mode == "wipe")
    assert ui["text"][0].startswith(f"2 clips of 3 frames, {mode}: {n} frames of ")


def test_the_slider_has_a_strip_and_labels(saved):
    _, ui, path = saved(mode="wipe", c=film(BLUE), label_c="third")
    assert ui["labels"] == ("source", "b", "third")
    (strip,) = ui["strip"]
    assert strip["type"] == "temp"
    (first, *_) = video_files.read(path(strip))
    assert [at(first, (k + 0.5) / 3, 0.5) for k in range(3)] == [RED, GREEN, BLUE]


def test_d_without_c(saved):
    (images, _), ui, _ = saved(d=film(GREY))
    assert ui["labels"] == ("source", "b", "d") and images.shape[2] == 3 * 196 - 4


def test_nothing_is_overwritten_and_folders_are_made(saved):
    names = [saved(filename_prefix="ei2/前 後")[1]["images"][0] for _ in range(2)]
    assert [(n["subfolder"], n["filename"]) for n in names] == [
        ("ei2", "前 後_00001_.mp4"),
        ("ei2", "前 後_00002_.mp4"),
    ]


def test_without_a_name_nothing_is_kept(saved):
    _, ui, path = saved(filename_prefix=" ")
    files = ui["images"] + ui["sheet"]
    assert [file["type"] for file in files] == ["temp"] * 2 and all(path(file).exists() for file in files)


def test_the_workflow_is_in_the_files(saved, monkeypatch):
    hidden = comfy_api.latest.io.HiddenHolder.from_dict({"PROMPT": {"1": "p"}, "EXTRA_PNGINFO": {"workflow": "w"}})
    monkeypatch.setattr(compare.Compare, "hidden", hidden)
    _, ui, path = saved()
    with av.open(str(path(ui["images"][0]))) as video:
        found = {key: json.loads(video.metadata[key]) for key in ("prompt", "workflow")}
    info = Image.open(path(ui["sheet"][0])).info
    assert found == {key: json.loads(info[key]) for key in found} == {"prompt": {"1": "p"}, "workflow": "w"}


def test_a_full_disk_is_told(saved, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder_paths, "get_save_image_path", full)
    with pytest.raises(EI2Error, match=r"cannot be written below .*No space left"):
        saved()


@pytest.mark.parametrize(
    ("prefix", "fine"),
    [
        ("", True),
        ("EI2_compare", True),
        ("ei2/compare", True),
        ("ei2/%date:yyyy-MM-dd%/比較", True),
        ("%width%x%height%", True),
        ("../compare", False),
        ("/compare", False),
        ("C:/compare", False),
        ("a/../../b", False),
        ("a\\..\\b", False),
        ("NUL", False),
        ("ei2/", False),
    ],
)
def test_names_are_checked_before_the_run(prefix, fine):
    found = compare.Compare.validate_inputs(mode="wipe", filename_prefix=prefix)
    assert found is True if fine else f"filename_prefix is {prefix!r}, and its part" in found


def test_a_name_from_another_node_is_checked_too(saved):
    with pytest.raises(EI2Error, match=r"filename_prefix is '\.\./a', and its part '\.\.' cannot be a name"):
        saved(filename_prefix="../a")


def test_a_mode_is_checked_before_the_run():
    assert "mode is 'grid': it must be one of side by side" in compare.Compare.validate_inputs(mode="grid")
    assert compare.Compare.validate_inputs(mode=None, filename_prefix=None) is True  # from other nodes


def test_a_panel_too_narrow_for_its_words_has_a_label_all_the_same():
    assert pictures.label("edit\nof a clip", 14).width == 14


@pytest.mark.parametrize("text", ["W" * 40, "A LOUD CAPTION " * 4, "edit\n" + "M" * 60, "iiii " * 9 + "W" * 12])
def test_no_letter_lies_beyond_the_edge(text):
    """Wide ones take more lines."""
    picture = pictures.label(text, 192)
    assert ink(picture) == ink(picture.crop((0, 0, 187, picture.height))) > 0


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("plain words 12", "plain words 12"),
        ("EI² café", "EI2 cafe"),
        ("一个 circle", "?? circle"),
        ("²", "2"),
        ("cafe\u0301", "cafe"),
        ("\u25b6\ufe0f", "?"),
        ("\ud55c", "?"),
        ("one\ntwo", "one\ntwo"),
    ],
)
def test_a_label_has_no_boxes_for_letters(monkeypatch, text, alone):
    """A system font that has them, or the nearest of Pillow's own."""
    shown, font = pictures.readable(text, 16)
    assert all(pictures.has(font, letter) for letter in shown)
    found = any(all(pictures.has(font, letter) for letter in text) for font in pictures.system_fonts(16))
    assert shown == text if found else shown == alone
    monkeypatch.setattr(pictures, "system_fonts", lambda pixels: ())
    assert pictures.readable(text, 16)[0] == alone
