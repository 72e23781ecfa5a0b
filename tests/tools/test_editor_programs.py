"""What the programs around the editor work out without a browser: nodes over each other, the newest editor's pages."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.server import editor, frontend

BOX = ("a", 0, 0, 100, 50)


@pytest.mark.parametrize(
    ("other", "over"),
    [
        (("b", 10, 10, 5, 5), True),
        (("b", -50, -50, 300, 300), True),
        (("b", 98, 48, 10, 10), True),
        (("b", 99, 0, 10, 10), False),  # a pixel is rounding
        (("b", 0, 49, 10, 10), False),
        (("b", 100, 0, 10, 10), False),
        (("b", 10, 60, 50, 50), False),
        (("b", 10, 10, 0, 0), False),
    ],
)
def test_nodes_over_each_other(monkeypatch, other, over):
    for boxes in ([BOX, other], [other, BOX]):
        monkeypatch.setattr(editor, "boxes", lambda page, boxes=boxes: boxes)
        assert editor.overlaps(None) == ([(boxes[0][0], boxes[1][0])] if over else [])


@pytest.fixture
def fetches(monkeypatch, tmp_path):
    """How often the package is fetched, into a cache of its own; set `fails`, or `before` to what happens meanwhile."""
    seen = SimpleNamespace(count=0, fails=0, before=lambda: None)

    def download(command, **options):
        seen.count += 1
        seen.before()
        if not seen.fails:
            with zipfile.ZipFile(Path(command[-1]) / "a.whl", "w") as wheel:
                wheel.writestr(f"{frontend.PACKAGE}/static/index.html", "the page")
        return SimpleNamespace(returncode=seen.fails)

    monkeypatch.setattr(frontend, "CACHE", tmp_path)
    monkeypatch.setattr(frontend.subprocess, "run", download)
    return seen


def pages_of(cache) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file())


def test_the_newest_editor_is_fetched_once(fetches, tmp_path):
    assert frontend.newest() == frontend.newest()
    assert (frontend.newest() / "index.html").read_text() == "the page"
    assert fetches.count == 1 and pages_of(tmp_path) == ["index.html"]


def test_where_it_cannot_be_fetched_nothing_is_left(fetches, tmp_path):
    fetches.fails = 1
    assert frontend.newest() is None and pages_of(tmp_path) == []
    fetches.fails = 0
    assert frontend.newest() is not None


def test_what_broke_off_is_fetched_again(fetches, monkeypatch):
    """Half of the pages is none: they would be taken from then on."""

    def breaks_off(file, folder):
        (Path(folder) / frontend.PACKAGE / "static").mkdir(parents=True)
        (Path(folder) / frontend.PACKAGE / "static" / "index.html").touch()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(frontend.zipfile.ZipFile, "extractall", breaks_off)
        frontend.newest()
    assert (frontend.newest() / "index.html").read_text() == "the page"


def test_another_worker_may_be_first(fetches):
    fetches.before = lambda: setattr(fetches, "before", lambda: None) or frontend.newest()
    assert (frontend.newest() / "index.html").read_text() == "the page" and fetches.count == 2
