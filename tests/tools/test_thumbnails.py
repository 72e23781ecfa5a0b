"""How a template becomes a graph for the miniature model, and what its picture shows."""

import pytest
from PIL import Image

from tools.demo import thumbnails
from tools.demo.thumbnails import CLIP, MODEL, WORKFLOWS


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


PROMPT = {
    "1": node("CheckpointLoaderSimple", ckpt_name="a.safetensors"),
    "2": node("EI2LoadClip", file="a.mp4"),
    "3": node("ImageToMask", image=["2", 0], channel="red"),
    "4": node("ImageToMask", image=["5", 0], channel="red"),
    "5": node("ImageScale", image=["2", 0], width=512, height=512),
    "6": node("EI2OneShotTune", model=["1", 0], steps=500),
    "7": node("EI2LoadWeights", file_name="a"),
    "8": node("PrimitiveStringMultiline", value="a rabbit"),
    "9": node("CLIPTextEncode", clip=["1", 1], text=""),
    "10": node("CLIPTextEncode", clip=["1", 1], text="a rabbit"),
}


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        (["1", 0], [MODEL, 0]),
        (["1", 2], [MODEL, 2]),
        (["2", 0], [CLIP, 0]),
        (["2", 1], thumbnails.RATE),
        (["3", 0], [CLIP, 2]),
        (["4", 0], ["4", 0]),  # of a picture, not of the clip
        (["6", 0], ["6", 0]),
        (["7", 0], ["6", 1]),
        (["8", 0], [CLIP, 1]),
        ("words", "words"),
    ],
)
def test_what_stands_for_a_link(link, expected):
    assert thumbnails.relinked(PROMPT, link) == expected


def test_words_and_sizes_of_the_miniature():
    made = thumbnails.miniature(PROMPT, "star red blue slide 8", "style", "a red star")
    assert made[CLIP]["inputs"] == {
        "shape": "star", "colour": "red", "background": "blue", "motion": "slide", "frames": 8,
    }  # fmt: skip
    assert [made[i]["inputs"]["text"] for i in ("9", "10")] == ["", "a red star"]
    assert made["6"]["inputs"] | {"steps": 100, "model": [MODEL, 0]} == made["6"]["inputs"]
    assert PROMPT["6"]["inputs"]["steps"] == 500


@pytest.mark.parametrize(
    ("ends", "shown"),
    [
        ([node("EI2Compare", a=["2", 0], b=["6", 0], c=["2", 0], label_a="x")], [["2", 0], ["6", 0]]),
        ([node("CreateVideo", images=["6", 0]), node("EI2Compare", a=["2", 0], b=["5", 0])], [["2", 0], ["5", 0]]),
        ([node("CreateVideo", images=["6", 0])], [[CLIP, 0], ["6", 0]]),
    ],
)
def test_what_a_picture_shows(ends, shown):
    assert thumbnails.compared("a", PROMPT | {f"end {i}": end for i, end in enumerate(ends)}) == shown


@pytest.mark.parametrize("ends", [{}, {"video": node("CreateVideo", images=[CLIP, 0])}])
def test_a_template_that_shows_no_edit_is_refused_by_its_name(ends):
    with pytest.raises(SystemExit, match=r"12_mine shows 1 clip, .* EI² Compare or Create Video"):
        thumbnails.compared("12_mine", PROMPT | ends)


def test_rows_and_columns():
    rows = [[Image.new("RGB", (64, 64), (40 * y, 30 * x, 0)) for x in range(8)] for y in range(3)]
    picture = thumbnails.thumbnail(rows)
    cell = (picture.width + thumbnails.GAP) // 3
    shown = [[picture.getpixel((x * cell + 9, y * cell + 9)) for x in range(3)] for y in range(3)]
    assert shown == [[(40 * y, 30 * x, 0) for x in (0, 4, 7)] for y in range(3)]


def test_every_template_has_a_picture_that_is_nearly_square():
    for path in WORKFLOWS.glob("*.json"):
        width, height = Image.open(path.with_suffix(".jpg")).size
        assert thumbnails.SIDE - 4 <= width <= thumbnails.SIDE and width <= height <= width + 40, path.stem
