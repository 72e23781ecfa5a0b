"""Which kind of attention stands where, on the UNets of SD1.5, SDXL and the miniature."""

import pytest

from ei2_modules.attention.layouts import ATTENTION_NAMES, crossing, pools


def places(**channels):
    return {(part, number): width for part, by_number in channels.items() for number, width in by_number.items()}


SD15 = places(
    input={1: 320, 2: 320, 4: 640, 5: 640, 7: 1280, 8: 1280},
    middle={0: 1280},
    output={3: 1280, 4: 1280, 5: 1280, 6: 640, 7: 640, 8: 640, 9: 320, 10: 320, 11: 320},
)
SDXL = places(
    input={4: 640, 5: 640, 7: 1280, 8: 1280}, middle={0: 1280}, output=dict.fromkeys(range(3), 1280) | {3: 640, 4: 640}
)
KOALA = {place: width for place, width in SDXL.items() if place[0] != "middle"}
MINIATURE = places(input={1: 32, 3: 64}, middle={0: 64}, output={0: 64, 1: 64, 2: 32, 3: 32})
ONE_LEVEL = places(input={1: 320}, middle={0: 320}, output={0: 320, 1: 320})

DENSE = {  # of vid2vid-zero; SCA at all other places
    "SD1.5": (SD15, {("input", 1), ("middle", 0), ("output", 3)}),
    "SDXL": (SDXL, {("input", 4), ("middle", 0), ("output", 0)}),
    "no middle": (KOALA, {("input", 4), ("output", 0)}),
    "miniature": (MINIATURE, {("input", 1), ("middle", 0), ("output", 0)}),
}
ALONE = {  # where FateZero's frames see only themselves
    "SD1.5": (SD15, {("input", 1), ("input", 2), ("output", 9), ("output", 10), ("output", 11)}),
    "SDXL": (SDXL, set()),
    "miniature": (MINIATURE, {("input", 1), ("output", 2), ("output", 3)}),
    "one level": (ONE_LEVEL, set(ONE_LEVEL)),
}


@pytest.mark.parametrize(("widths", "dense"), DENSE.values(), ids=DENSE)
def test_vid2vid_zero_is_dense_in_three_places(widths, dense):
    found = crossing("vid2vid-zero", widths)
    assert list(found) == list(widths)
    assert found == {place: "dense" if place in dense else "SCA" for place in widths}


@pytest.mark.parametrize(("widths", "alone"), ALONE.values(), ids=ALONE)
def test_fatezero_sees_the_middle_frame_where_it_is_wide(widths, alone):
    assert crossing("FateZero", widths) == {place: "middle-frame" for place in widths if place not in alone}


@pytest.mark.parametrize("kind", ["FFAM", "SCA", "first-frame", "dense", "middle-frame"])
def test_others_are_the_same_everywhere(kind):
    assert crossing(kind, SD15) == dict.fromkeys(SD15, kind)


def test_frames_that_stay_apart_need_no_hook():
    assert crossing("per-frame", SD15) == {}


def test_only_ffam_pools():
    assert [name for name in ATTENTION_NAMES if pools(name)] == ["FFAM"]
