"""Windows of long clips, and what they see of the anchors outside them."""

import pytest
import torch

from ei2_modules.attention.frame import frame_attention
from ei2_modules.attention.windows import OFFSETS, Anchors, anchor_frames, windows

from .test_frame_attention import DIM, HEADS, slow_pool


@pytest.mark.parametrize("length", [1, 2, 5, 8, 16])
@pytest.mark.parametrize("frames", [1, 2, 7, 16, 17, 24, 33, 64, 255, 256])
@pytest.mark.parametrize("turn", range(6))
def test_every_frame_is_in_one_window(frames, length, turn):
    found = windows(frames, length, turn)
    assert [i for window in found for i in window] == list(range(frames))
    assert all(0 < len(window) <= length for window in found)
    assert len(found) <= -(-frames // length) + (turn > 0)


@pytest.mark.parametrize("frames", [17, 24, 64, 100, 256])
def test_borders_move_from_turn_to_turn(frames):
    """No pair of frames is parted twice in six turns, and no window is so short that it sees hardly any time."""
    layouts = [windows(frames, 16, turn) for turn in range(len(OFFSETS))]
    borders = [window[0] for layout in layouts for window in layout if window[0]]
    assert len(set(borders)) == len(borders) or frames < 24  # windows of 8 frames have too few places
    assert min(len(window) for layout in layouts for window in layout) >= (2 if frames < 24 else 3)
    assert windows(frames, 16, len(OFFSETS)) == layouts[0]


@pytest.mark.parametrize(
    ("frames", "expected"), [(256, [32, 96, 160, 224]), (24, [3, 9, 15, 21]), (4, [0, 1, 2, 3]), (2, [0, 1])]
)
def test_anchors_are_spread(frames, expected):
    assert anchor_frames(frames) == expected


def test_the_first_way_to_lay_windows_is_the_plain_one():
    assert windows(20, 16) == windows(20, 16, 0) == [list(range(10)), list(range(10, 20))]


def test_windows_see_the_anchors_outside_them():
    """Against the sentence itself: eq. 10 over the window, and the coarser tokens of each anchor outside it."""
    torch.manual_seed(0)
    size, texts, clip = (4, 6), ["cond", "uncond"], torch.randn(3, 2, 9, 24, DIM)  # q k v, texts, frames
    anchors, window, r = Anchors([1, 4, 7], 1), [3, 4, 5], 1

    def of(frames):
        return (x[:, frames].flatten(0, 1) for x in clip)

    _, k, v = of(anchors.frames)
    anchors.record("here", texts, k, v, size)
    assert anchors.outside("here", texts, anchors.frames) is None
    q, k, v = of(window)
    outside = anchors.outside("here", texts, window)
    fast = frame_attention(q, k, v, kind="FFAM", heads=HEADS, frames=3, size=size, ratio=r, outside=outside)
    rows = []
    for text in range(2):
        for i in window:
            order = [i, *(j for j in window if j != i)]  # at r = 1 coarse tokens are the tokens
            keys, values = (
                torch.cat([*(x[text, j] for j in order), *(slow_pool(x[text, j], size, 2 * r) for j in (1, 7))])
                for x in clip[1:]
            )
            query = clip[0, text, i]
            heads = [
                torch.softmax(a @ b.T / (DIM // HEADS) ** 0.5, -1) @ c
                for a, b, c in zip(*(x.chunk(HEADS, -1) for x in (query, keys, values)), strict=True)
            ]
            rows.append(torch.cat(heads, -1))
    torch.testing.assert_close(fast, torch.stack(rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("place", "texts", "window"),
    [
        ("elsewhere", ["cond"], [3, 4]),
        ("here", ["uncond"], [3, 4]),
        ("here", ["cond", "uncond"], [3, 4]),
        ("here", ["cond"], [0, 1, 2]),
    ],
    ids=["another place", "another text", "one text unknown", "all anchors inside"],
)
def test_nothing_is_seen_of_what_was_not_recorded(place, texts, window):
    anchors, size = Anchors([0, 2], 2), (2, 2)
    anchors.record("here", ["cond"], *torch.randn(2, 2, 4, DIM), size)
    assert anchors.outside(place, texts, window) is None


def test_texts_have_anchors_of_their_own():
    anchors, size, window = Anchors([0, 5], 2), (4, 4), [2, 3]
    k, v = torch.randn(2, 4, 16, DIM)  # two texts, two anchors
    anchors.record("here", ["cond", "uncond"], k, v, size)
    seen = {text: anchors.outside("here", [text], window)[0] for text in ("cond", "uncond")}
    expected = {
        text: torch.cat([slow_pool(row, size, 4) for row in rows]) for text, rows in zip(seen, k.split(2), strict=True)
    }
    for text, found in seen.items():
        torch.testing.assert_close(found[0], expected[text], rtol=0, atol=1e-6)


def test_tiles_of_a_window_have_anchors_of_their_own():
    """However many of them, and of the texts, come in one call."""
    anchors, size = Anchors([0, 5], 2), (4, 4)
    tiles = torch.randn(2, 3, 2, 2, 16, DIM)  # k v, tiles, texts, anchors
    names = anchors.parts("here", 3 * ["cond", "uncond"], anchors.frames)
    anchors.record("here", names, *(x.flatten(0, 2) for x in tiles), size)
    for window, calls in (
        ([2, 3], [["cond"]] * 3),
        ([7, 8], [2 * ["cond"], ["cond"]]),
        ([9], [3 * ["cond", "uncond"]]),
    ):
        seen = [anchors.outside("here", anchors.parts("here", texts, window), window)[0] for texts in calls]
        expected = [[slow_pool(x, size, 4) for x in text] for tile in tiles[0] for text in tile]
        expected = torch.stack([torch.cat(rows) for rows in expected])
        torch.testing.assert_close(torch.cat(seen), expected if len(calls) == 1 else expected[::2], rtol=0, atol=1e-6)
    assert anchors.outside("here", anchors.parts("here", ["cond"], window), window) is None, "a fourth tile"
