"""The Chinese help pages keep up with the English ones: block for block, with the same code, numbers and pictures.

ComfyUI asks for `docs/ID/zh.md` first, and takes `docs/ID.md` where it is missing. It looks for the pictures of both in
`docs/`, wherever the page lies, so their links are the same, and it follows no other link.
"""

import itertools
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HELP = ROOT / "web/docs"
IDS = list(json.loads((ROOT / "node_list.json").read_text(encoding="utf-8")))
NAMES = {
    locale: json.loads((ROOT / f"locales/{locale}/nodeDefs.json").read_text(encoding="utf-8"))
    for locale in ("en", "zh")
}
MARK = r" *(?:#+ |- |\d+\. |\|)"
CODE = r"`[^`\n]+`"
LINK = r"\]\(\s*<?([^)\s>]+)|(?:src|href)=[\"']([^\"']+)"
CHINESE = r"[\u4e00-\u9fff]"
ENGLISH_BY_ITSELF = ["a [small | big] [striped | dotted] COLOUR SHAPE"]  # what the miniature model reads


def english(node_id: str) -> str:
    return (HELP / f"{node_id}.md").read_text(encoding="utf-8")


def chinese(node_id: str) -> str:
    return (HELP / node_id / "zh.md").read_text(encoding="utf-8")


def blocks(page: str) -> list[str]:
    """Its headings, paragraphs, items of lists and rows of tables."""
    return [block.strip("\n") for block in re.split(rf"\n(?=\n|{MARK})", page) if block.strip()]


def links(page: str) -> list[str]:
    return ["".join(link) for link in re.findall(LINK, re.sub(CODE, "", page))]


def kept(block: str) -> dict:
    """What a translation of the block has too."""
    words = re.sub(CODE, "", block)
    return {
        "anything": bool(block),
        "mark": mark[0] if (mark := re.match(MARK, block)) else "",
        "code": sorted(re.findall(CODE, block)),
        "numbers": sorted(re.findall(r"\d+(?:[.,]\d+)*", words)),
        "pictures": links(block),
        "cells and bold": (words.count("|"), words.count("**")),
    }


def first_difference(page: str, translation: str) -> tuple[str, str] | None:
    """The first block that does not keep what it should, beside its translation."""
    pairs = itertools.zip_longest(blocks(page), blocks(translation), fillvalue="")
    return next((pair for pair in pairs if kept(pair[0]) != kept(pair[1])), None)


def left_in_english(translation: str) -> list[str]:
    """Blocks with words, besides code and links, of which none is Chinese."""
    found = [block for block in blocks(translation) if not re.search(CHINESE, block)]
    return [block for block in found if re.search(r"[a-z]{3}", re.sub(rf"{CODE}|{LINK}", "", block))]


def test_every_node_has_one_page_and_nothing_else_lies_beside_it():
    assert sorted(p.relative_to(HELP).as_posix() for p in HELP.glob("*/*")) == sorted(f"{n}/zh.md" for n in IDS)


@pytest.mark.parametrize("node_id", IDS)
def test_the_page_is_headed_by_both_names_of_the_node(node_id):
    names = [NAMES[locale][node_id]["display_name"] for locale in ("zh", "en")]
    assert chinese(node_id).startswith("# {}（{}）\n".format(*names))


@pytest.mark.parametrize("node_id", IDS)
def test_the_page_keeps_up_with_the_english_one(node_id):
    assert first_difference(english(node_id), chinese(node_id)) is None


@pytest.mark.parametrize("node_id", IDS)
def test_the_page_is_translated(node_id):
    left = [block for block in left_in_english(chinese(node_id)) if not block.startswith(tuple(ENGLISH_BY_ITSELF))]
    assert left == []


@pytest.mark.parametrize("node_id", IDS)
@pytest.mark.parametrize("language", [english, chinese])
def test_the_links_are_pictures_beside_the_english_page(node_id, language):
    """Of another page there is the name alone."""
    assert [link for link in links(language(node_id)) if not re.fullmatch(r"\w+\.png", link)] == []
    assert [link for link in links(language(node_id)) if not (HELP / link).exists()] == []


PAGE = "# Tune\n\nTakes `steps` of 3e-5\nand 1,000.\n\n![tune](A.png)\n\n- `a`: **one**.\n  - b\n\n| c | `d` |\n"


@pytest.mark.parametrize(
    ("old", "new", "fine"),
    [
        ("Tune", "微调", True),
        ("Takes `steps` of 3e-5\nand 1,000", "1,000 与 3e-5 的\n`steps`", True),
        ("# Tune", "## Tune", False),
        ("`steps`", "`step`", False),
        ("`steps`", "steps", False),
        ("`steps`", "`steps` `steps`", False),
        ("1,000", "1000", False),
        ("1,000", "a thousand", False),
        ("A.png", "B.png", False),
        ("![tune](A.png)", "", False),
        ("**one**", "one", False),
        ("  - b", "- b", False),
        ("  - b", "", False),
        ("  - b", "  - b\n- c", False),
        ("- `a`: **one**.\n  - b", "- **one**.\n  - b `a`", False),
        ("| c | `d` |", "| c `d` |", False),
        ("| c | `d` |\n", "| c | `d` |\n\nMore.\n", False),
    ],
)
def test_a_page_that_fell_behind_is_seen(old, new, fine):
    assert PAGE.count(old) == 1
    assert (first_difference(PAGE, PAGE.replace(old, new)) is None) is fine


@pytest.mark.parametrize(
    ("block", "fine"),
    [("- `eta`：噪声 eta。", True), ("![](EI2Tune.png)", True), ("|---|---|", True), ("- `eta`: more noise.", False)],
)
def test_a_block_that_was_not_translated_is_seen(block, fine):
    assert (left_in_english(f"# 微调\n\n{block}\n") == []) is fine
