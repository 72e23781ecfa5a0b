"""Names that a user types: what every system can hold, beside what one of them cannot."""

import pytest

from ei2_modules.files.names import MOST_BYTES, composed, fresh, name_fault

HINDI = "\u0939\u093f\u0928\u094d\u0926\u0940"  # with marks that have no code of their own
GOOD = ["my_clip", "a", "clip (2)", "v1.5+x-y", "caf\u00e9", "cafe\u0301", "\u732b\u306e\u52d5\u753b", HINDI, "_x", "1"]
GOOD += ["CONcert", "a" * MOST_BYTES, "\u732b" * (MOST_BYTES // 3)]
BAD = {
    "": "empty",
    "   ": "empty",
    "a/b": "'/'",
    "a\\b": "use letters",
    "a:b": "':'",
    "a\nb": "use letters",
    "a\u200bb": "use letters",
    "..": "two dots",
    "a..b": "two dots",
    ".a": "begin with",
    " a": "begin with",
    "x.": "ends in a dot",
    "x ": "ends in a dot or a space",
    "CON": "CON is the name of a device",
    "con.txt": "CON is",
    "Lpt1": "LPT1 is",
    "nul .x": "NUL is",
    "a" * (MOST_BYTES + 1): "201 bytes, and 200",
    "\u732b" * 84: "252 bytes",
}


@pytest.mark.parametrize("name", GOOD)
def test_these_are_names(name):
    assert name_fault(name) is None


@pytest.mark.parametrize(("name", "words"), BAD.items())
def test_these_are_not(name, words):
    assert words in name_fault(name)


def test_one_code_for_a_letter():
    assert composed("cafe\u0301") == "caf\u00e9"


@pytest.mark.parametrize(
    ("there", "first", "found"),
    [
        ([], 1, "a_00001_.png"),
        ([1, 2], 1, "a_00003_.png"),
        ([1, 3], 1, "a_00002_.png"),
        ([1], 4, "a_00004_.png"),
        ([4, 5], 4, "a_00006_.png"),
    ],
)
def test_a_fresh_number(tmp_path, there, first, found):
    for number in there:
        (tmp_path / f"a_{number:05}_.png").touch()
    (tmp_path / "b_00001_.png").touch()
    (tmp_path / "a_00001_.txt").touch()
    assert fresh(tmp_path, "a", ".png", first) == tmp_path / found
