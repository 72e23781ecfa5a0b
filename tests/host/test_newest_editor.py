"""The templates in the newest editor that can be fetched: Nodes 2.0, and the window of a phone."""

import json

import pytest

from tools.demo import template_files
from tools.demo.template_files import SMALL
from tools.demo.thumbnails import WORKFLOWS
from tools.server import editor, frontend
from tools.server.comfy_server import Server

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium: apt install chromium, or set CHROMIUM")

PHONE = {"width": 390, "height": 844}
DEMO = "00_demo_model"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    pages = frontend.newest()
    if pages is None:
        pytest.skip(f"the editor {frontend.VERSION} could not be fetched")
    with Server(tmp_path_factory.mktemp("newest"), arguments=("--front-end-root", str(pages))) as server:
        template_files.stage(server, 8)
        with editor.editor(server) as opened:
            assert opened.evaluate("window.__COMFYUI_FRONTEND_VERSION__") == frontend.VERSION
            editor.use_nodes_2(opened, True)
            yield opened


def load(page, name: str) -> None:
    editor.load(page, json.loads((WORKFLOWS / f"{name}.json").read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", [path.stem for path in sorted(WORKFLOWS.glob("*.json"))])
def test_every_template_opens_without_overlap(page, name):
    load(page, name)
    assert editor.faulty(page) == []
    page.wait_for_function("() => document.querySelectorAll('[data-node-id]').length")
    assert editor.overlaps(page) == []


@pytest.mark.parametrize("in_html", [True, False])
def test_nodes_over_each_other_are_seen(page, in_html):
    """By their places in the graph, wherever the window shows it."""
    editor.use_nodes_2(page, in_html)
    load(page, DEMO)
    try:
        first, second = page.evaluate(MOVED)
        page.wait_for_timeout(500)
        assert editor.overlaps(page) == [(first, second)]
        (box,) = [box for box in editor.boxes(page) if box[0] == first]
        assert box[1:3] == pytest.approx([-2000, -2000], abs=40)  # its title lies above
    finally:
        editor.use_nodes_2(page, True)


MOVED = """() => {
  const [first, second] = app.graph._nodes;
  first.pos = [-2000, -2000];
  second.pos = [-1950, -1950];
  return [first.title, second.title];
}"""


SHOWN = """type => {
  const node = app.graph._nodes.find(n => n.type === type);
  const drawn = document.querySelector(`[data-node-id="${node.id}"]`);
  return [...drawn.querySelectorAll("img, video")].filter(p => p.naturalWidth || p.readyState).length;
}"""


def test_run_by_clicking_and_look(page):
    """What the nodes show lies in them, and over no other."""
    load(page, DEMO)
    assert editor.run(page, SMALL) == []
    for kind in ("EI2OneShotTune", "EI2InvertVideo", "EI2Compare"):
        page.wait_for_function(f"({SHOWN})('{kind}')", timeout=30_000)
    assert editor.overlaps(page) == []


def test_on_a_phone(page):
    """The Run button can be reached, and the same nodes are there."""
    load(page, DEMO)
    page.set_viewport_size(PHONE)
    try:
        assert editor.run(page, SMALL | {"EI2Sampler": {"seed": 5}}) == []
        assert editor.faulty(page) == []
    finally:
        page.set_viewport_size({"width": 1900, "height": 1200})
