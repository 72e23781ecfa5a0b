"""EI² Compare in ComfyUI's own editor, with nodes on a canvas and as Nodes 2.0: what is seen, and dragging its line."""

import io
from itertools import pairwise

import pytest
from PIL import Image

from tools.server import editor

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium: apt install chromium, or set CHROMIUM")

NODE = "EI2Compare"
BLUE, YELLOW = "blue", "yellow"  # behind the shapes of the two clips


GRAPH = """backgrounds => {
  app.graph.clear();
  const add = (type, x, y) => {
    const node = LiteGraph.createNode(type);
    node.pos = [x, y];
    app.graph.add(node);
    return node;
  };
  const compare = add("EI2Compare", 500, 0);
  backgrounds.forEach((colour, k) => {
    const clip = add("EI2DemoClip", 0, 350 * k);
    clip.widgets.find(w => w.name === "background").value = colour;
    clip.widgets.find(w => w.name === "frames").value = 3;
    clip.connect(0, compare, k);
  });
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["canvas", "Nodes 2.0"])
def page(server, request):
    with editor.editor(server, 1500, 1400) as opened:
        editor.use_nodes_2(opened, request.param)
        opened.evaluate(GRAPH, [BLUE, YELLOW])
        opened.wait_for_timeout(500)
        assert (opened.locator("[data-node-id]").count() == 3) is request.param
        yield opened
        editor.use_nodes_2(opened, False)


COMPARE = "app.graph._nodes.find(n => n.type === 'EI2Compare')"
ELEMENT = f"{COMPARE}.widgets.find(w => w.name === 'ei2_comparison').element"


@pytest.fixture(scope="module")
def compared(page):
    """The page after a run in wipe mode."""
    assert editor.run(page, {NODE: {"mode": "wipe", "label_b": "編集"}}, 120) == []
    page.wait_for_function(f"{ELEMENT}.querySelector('canvas')?.width > 300")
    page.wait_for_function(f"{ELEMENT}.querySelector('img').naturalWidth > 500")
    page.wait_for_timeout(500)
    return page


def part(page, name: str):
    """A canvas or picture in the node, brought into view."""
    editor.show(page, NODE)
    page.wait_for_timeout(500)
    return page.evaluate_handle(f"{ELEMENT}.querySelector('{name}')").as_element()


def backgrounds(page, *shares: float) -> list[str]:
    """What is seen near the lower edge of the slider, at these shares of its width."""
    box = part(page, "canvas").bounding_box()
    shot = Image.open(io.BytesIO(page.screenshot(clip=box))).convert("RGB")
    found = [shot.getpixel((int(x * shot.width), int(0.97 * shot.height))) for x in shares]
    return [YELLOW if red > blue else BLUE for red, _, blue in found]


def drag(page, start: float, end: float) -> None:
    box = part(page, "canvas").bounding_box()
    x, y = box["x"], box["y"] + box["height"] / 2
    page.mouse.move(x + start * box["width"], y)
    page.mouse.down()
    page.mouse.move(x + (start + end) / 2 * box["width"], y)
    page.mouse.move(x + end * box["width"], y)
    page.mouse.up()
    page.wait_for_timeout(200)


def test_the_line_is_dragged_and_the_node_is_not(compared):
    place = compared.evaluate(f"[...{COMPARE}.pos]")
    assert backgrounds(compared, 0.05, 0.45, 0.55, 0.95) == [BLUE, BLUE, YELLOW, YELLOW]
    drag(compared, 0.5, 0.9)
    assert backgrounds(compared, 0.05, 0.85, 0.95) == [BLUE, BLUE, YELLOW]
    drag(compared, 0.9, 0.1)
    assert backgrounds(compared, 0.05, 0.15, 0.95) == [BLUE, YELLOW, YELLOW]
    assert compared.evaluate(f"[...{COMPARE}.pos]") == place


def test_the_slider_plays(compared):
    watched = "canvas => { const seen = canvas.toDataURL(); return () => canvas.toDataURL() !== seen; }"
    changed = compared.evaluate_handle(watched, part(compared, "canvas"))
    compared.wait_for_function("changed => changed()", arg=changed, timeout=20_000)


def test_video_and_sheet_lie_in_the_node(compared):
    """Each wholly inside its borders, and no one over another."""
    compared.wait_for_function("document.querySelector('video')?.readyState >= 2")
    node = editor.show(compared, NODE)
    video = compared.locator("video")
    assert "EI2_compare" in (video.get_attribute("src") or video.locator("source").get_attribute("src"))
    boxes = [part(compared, "canvas").bounding_box(), part(compared, "img").bounding_box(), video.bounding_box()]
    for box in boxes:
        assert node["x"] <= box["x"] and box["x"] + box["width"] <= node["x"] + node["width"] + 1
        assert box["height"] > 20
        assert node["y"] <= box["y"] and box["y"] + box["height"] <= node["y"] + node["height"] + 1
    boxes.sort(key=lambda box: box["y"])
    assert all(a["y"] + a["height"] <= b["y"] + 1 for a, b in pairwise(boxes))


def test_nothing_of_it_is_saved_with_the_workflow(compared):
    saved = compared.evaluate(f"{COMPARE}.serialize().widgets_values")
    assert saved[:8] == ["source", "編集", "wipe", 8, "", "", 4, "EI2_compare"]
    assert all(value is None or "2 clips of" in value for value in saved[8:])  # the host's own texts


def test_another_mode_takes_the_slider_away(compared):
    assert editor.run(compared, {NODE: {"mode": "difference"}}, 120) == []
    compared.wait_for_function(f"{ELEMENT}.querySelector('img')?.naturalWidth > 500")
    assert not compared.evaluate(f"!!{ELEMENT}.querySelector('canvas')")
    assert editor.faulty(compared) == []


def test_it_is_there_again_after_a_change_of_tabs(compared):
    compared.evaluate("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    compared.wait_for_function("!app.graph._nodes.length")
    compared.evaluate("app.extensionManager.command.execute('Workspace.PreviousOpenedWorkflow')")
    compared.wait_for_function("app.graph._nodes.length === 3")
    compared.wait_for_function(f"{COMPARE}.widgets.find(w => w.name === 'ei2_comparison')", timeout=10_000)
    compared.wait_for_function(f"{ELEMENT}.querySelector('img')?.naturalWidth > 500")
