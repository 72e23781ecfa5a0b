"""The pages for people: the README stays short, links lead somewhere, lists are whole, named functions exist."""

import ast
import json
import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = "README.md"
MOST_LINES = 150
PAGES = [README, "CHANGELOG.md"]
PAGES += [
    p.relative_to(ROOT).as_posix() for folder in ("docs", "web/docs") for p in sorted(ROOT.glob(f"{folder}/*.md"))
]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def prose(text: str) -> str:
    """Without blocks of code, whose lines are neither headings nor links."""
    return re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)


def links(text: str) -> list[str]:
    """Targets inside the repository, with their anchors. Not what stands between backticks."""
    text = re.sub("`[^`\n]*`", "", prose(text))
    found = re.findall(r"\]\(\s*<?([^)\s>]+)", text) + re.findall(r"(?:src|href)=[\"']([^\"']+)", text)
    return [link for link in found if not re.match(r"[a-z]+:", link)]


def anchors(text: str) -> list[str]:
    """Of the headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+?) *$", prose(text), re.MULTILINE)
    plain = [anchor(heading) for heading in headings]
    return [f"{a}-{n}" if (n := plain[:i].count(a)) else a for i, a in enumerate(plain)]


def anchor(heading: str) -> str:
    kept = (c for c in heading.lower() if c in " -_" or unicodedata.category(c)[:1] in "LM" or c.isdecimal())
    return "".join(kept).replace(" ", "-")


def broken(page: str, text: str) -> list[str]:
    """The links of a page that lead to no file, or to no heading of one."""
    return [link for link in links(text) if not leads_somewhere(page, text, link)]


def leads_somewhere(page: str, text: str, link: str) -> bool:
    name, _, heading = link.partition("#")
    path = (ROOT / page).parent / name if name else ROOT / page
    if not path.exists():
        return False
    return not heading or heading in anchors(path.read_text(encoding="utf-8") if name else text)


def rows(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("|")]


def defined(path: Path) -> set[str]:
    """Functions, classes and assigned names at the top of a file."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    names = {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    return names | {t.id for node in body if isinstance(node, ast.Assign) for t in node.targets if hasattr(t, "id")}


def unknown(page: str, text: str) -> list[str]:
    """Names that stand in a cell of a table behind the link to a Python file which does not define them."""
    found = []
    for row in rows(text):
        for link, names in re.findall(r"\]\(([^)]+\.py)\)((?:,? ?`\w+`)*)", row):
            there = defined((ROOT / page).parent / link)
            found += [f"{link} {name}" for name in re.findall(r"`(\w+)`", names) if name not in there]
    return found


def test_the_readme_is_short():
    assert len(read(README).splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    assert broken(page, read(page)) == []


@pytest.mark.parametrize("node_id", json.loads(read("node_list.json")))
def test_the_readme_lists_the_node_with_its_help(node_id):
    assert [row for row in rows(read(README)) if f"[{node_id}](web/docs/{node_id}.md)" in row]


@pytest.mark.parametrize("template", sorted(p.stem for p in ROOT.glob("workflows/*.json")))
def test_the_readme_lists_the_template(template):
    assert [row for row in rows(read(README)) if row.startswith(f"| {template} |")]


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("docs/")])
def test_the_readme_leads_to_the_page(page):
    assert page in [link.partition("#")[0] for link in links(read(README))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("web/")])
def test_a_help_page_names_pages_that_exist(page):
    """ComfyUI cannot follow a link out of the folder, so help pages name the others."""
    assert [name for name in re.findall(r"\b(?:docs/\w+|[A-Z]+)\.md\b", read(page)) if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", [page for page in PAGES if page.startswith("web/")])
def test_a_help_page_fits_the_narrow_panel(page):
    """It is 285 pixels wide: of a table with three columns one would lie outside."""
    assert [row for row in rows(read(page)) if len(row.strip().strip("|").split("|")) > 2] == []


@pytest.mark.parametrize("room", ["ei2_modules", "nodes/host"])
def test_the_layout_names_every_folder(room):
    folders = {path.parent.name for path in (ROOT / room).glob("*/__init__.py")}
    assert folders and folders <= {row.split("`")[1] for row in rows(read("docs/develop.md")) if row.startswith("| `")}


def test_the_map_of_equations_names_what_is_defined():
    page = "docs/method.md"
    assert len(re.findall(r"\.py\) `\w+`", read(page))) > 10
    assert unknown(page, read(page)) == []


HERE = "# One two\n## One two\n## The r = 2, *bold* `code`\n```\n# no heading\n```\n"


@pytest.mark.parametrize(
    ("text", "fine"),
    [
        ("[a](README.md) ![b](docs/demo.png 'title') [c](https://d) <a href='mailto:e'>", True),
        ("[a](#one-two) [b](#one-two-1) [c](#the-r--2-bold-code)", True),
        ("`[a](none.md)`\n```\n[b](none.md)\n```\n", True),
        ("[a](none.md)", False),
        ("![a](none.png)", False),
        ('<img src="none.png">', False),
        ("[a](#none)", False),
        ("[a](#one-two-2)", False),
        ("[a](#no-heading)", False),
        ("[a](CHANGELOG.md#none)", False),
    ],
)
def test_a_broken_link_is_seen(text, fine):
    assert (broken(README, HERE + text) == []) is fine


@pytest.mark.parametrize(
    ("row", "fine"),
    [
        ("| eq | [a](ei2_modules/errors.py) `EI2Error`, `WeightsError` |", True),
        ("| eq | [a](ei2_modules/attention/frame.py) `ATTENTIONS` |", True),
        ("| eq | [a](ei2_modules/errors.py) `EI2Error`, `Nothing` |", False),
        ("| eq | [a](ei2_modules/errors.py) `EI2Error`; [b](ei2_modules/config.py) `EI2Error` |", False),
    ],
)
def test_an_undefined_name_is_seen(row, fine):
    assert (unknown(README, row) == []) is fine
