"""What the pages quote of messages is what the pack says: a changed message must not leave its explanation behind.

Of every table whose first column is headed "message", the pages' quotes are what stands in that column between
backticks, with … for names and numbers; of a list under "Common faults" what stands before an item's colon. The pack's
words are the strings of its code, but for docstrings.
"""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = "docs/troubleshooting.md"
HELP = [p.relative_to(ROOT).as_posix() for p in sorted(ROOT.glob("web/docs/*.md"))]
GAP = "…"


def quotes(page: str) -> list[str]:
    """The messages that a page explains."""
    found, inside, faults = [], False, False
    for line in page.splitlines():
        faults = line == "## Common faults" if line.startswith("## ") else faults
        item = re.match("- (?:Log: |Note: )?(`[^`]+`(?:, `[^`]+`)*):", line) if faults else None
        found += re.findall("`([^`]+)`", item[1]) if item else []
        first = line.split("|")[1].strip() if line.startswith("|") else ""
        inside = first.startswith("message") or (inside and bool(first))
        found += re.findall("`([^`]+)`", first) if inside else []
    return found


def words(code: str) -> list[str]:
    """The strings of a file, with a gap for what is filled in."""
    tree = ast.parse(code)
    docstrings = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Expr)}
    strings = [n for n in ast.walk(tree) if id(n) not in docstrings]
    plain = [n.value for n in strings if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    filled = ["".join(getattr(part, "value", GAP) if isinstance(part, ast.Constant) else GAP for part in n.values)
              for n in strings if isinstance(n, ast.JoinedStr)]  # fmt: skip
    return [re.sub("%[sd]", GAP, text) for text in (*plain, *filled)]


def said(quote: str, strings: list[str]) -> bool:
    """Whether one of the strings has the parts of a quote between its gaps, in their order."""
    parts = re.sub(f"['\"]{GAP}['\"]", GAP, quote).split(GAP)  # a name may be quoted by its repr
    pattern = re.compile(".*".join(re.escape(part.strip()) for part in parts), re.DOTALL)
    return any(pattern.search(text) for text in strings)


def pack_words() -> list[str]:
    files = [*ROOT.glob("nodes/**/*.py"), *ROOT.glob("ei2_modules/**/*.py")]
    return [text for file in files for text in words(file.read_text(encoding="utf-8"))]


WORDS = pack_words()
QUOTES = {page: quotes((ROOT / page).read_text(encoding="utf-8")) for page in (PAGE, *HELP)}


@pytest.mark.parametrize("page", QUOTES)
def test_the_pack_says_what_a_page_quotes(page):
    assert [quote for quote in QUOTES[page] if not said(quote, WORDS)] == []


@pytest.mark.parametrize("page", QUOTES)
def test_quotes_are_long_enough_to_tell_messages_apart(page):
    assert QUOTES[page], "no table of messages was found"
    assert [quote for quote in QUOTES[page] if len(re.findall(r"[A-Za-z]{2,}", quote)) < 2] == []


def test_every_message_is_explained_once():
    assert sorted(set(QUOTES[PAGE])) == sorted(QUOTES[PAGE])


TABLE = "| message or symptom | cause |\n|---|---|\n| `a b …` (or `c d`) | `no` |\n| no quote | x |\n"


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        (TABLE, ["a b …", "c d"]),
        ("| input | what |\n|---|---|\n| `no` | x |\n", []),
        (TABLE + "\n| input | what |\n|---|---|\n| `no` | x |\n", ["a b …", "c d"]),
        ("`no`\n", []),
        ("## Common faults\n\n- `a b …`, `c d`: so `no`.\n- Log: `e f`: so.\n- none\n", ["a b …", "c d", "e f"]),
        ("## Tips\n\n- `no`: so.\n", []),
    ],
)
def test_quotes_are_found(page, expected):
    assert quotes(page) == expected


SAID = [
    ("tuned on another … checkpoint", 'f"tuned on another {family} checkpoint: its"'),
    ("3 frames", '"3 frames"'),
    ("'…' cannot be", 'f"{name!r} cannot be"'),
    ("one two", '"one " "two"'),
    ("one … two", 'f"one {a} " f"and two"'),
    ("set at … is replaced", 'log("the %s set at %s %d is replaced", 1)'),
]
NOT_SAID = [
    ("tuned on another … checkpoint", 'f"tuned on one {family} checkpoint"'),
    ("3 frames", 'f"{n} frames"'),  # what is filled in is for the page to leave out
    ("one … two", '"two", "one"'),
    ("one … two", '"one", "two"'),  # two messages
    ("one two", '"""one two"""'),
    ("one two", 'def f():\n    """one two"""'),
    ("one two", "# one two"),
]


@pytest.mark.parametrize(("quote", "code"), SAID)
def test_what_is_said_is_found(quote, code):
    assert said(quote, words(f"x = {code}"))


@pytest.mark.parametrize(("quote", "code"), NOT_SAID)
def test_what_is_not_said_is_missed(quote, code):
    assert not said(quote, words(code))
