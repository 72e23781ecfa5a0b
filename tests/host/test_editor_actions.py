"""What a user does in ComfyUI's own editor, by hand: open templates, watch a run, cancel it, read a help page."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from tools import ROOT
from tools.server import editor
from tools.server.comfy_server import PACK_FOLDER

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium: apt install chromium, or set CHROMIUM")

WORKFLOWS = {path.stem: path for path in sorted((ROOT / "workflows").glob("*.json"))}
DEMO = WORKFLOWS["00_demo_model"]
SHORT = {"EI2DemoClip": {"frames": 2}, "EI2InvertVideo": {"steps": 2}}
TUNING = {"preview_every": 2, "seed": 81}  # nothing that another test has tuned


@pytest.fixture(scope="module")
def page(server):
    with editor.editor(server) as opened:
        yield opened


def types(workflow: dict) -> list[str]:
    return sorted(node["type"] for node in workflow["nodes"])


def arrived(page, path) -> None:
    """Every node and link of the file is in the graph, and none is missing or red."""
    workflow = json.loads(path.read_text(encoding="utf-8"))
    page.wait_for_function("n => app.graph._nodes.length === n", arg=len(workflow["nodes"]), timeout=60_000)
    page.wait_for_timeout(500)  # what is wrong with a graph is told a moment later
    opened = json.loads(page.evaluate("JSON.stringify(app.graph.serialize())"))
    assert types(opened) == types(workflow)
    assert len(opened["links"]) == len(workflow["links"])
    assert editor.faulty(page) == []


def test_a_template_is_opened_by_clicking(page):
    page.evaluate("app.graph.clear()")
    editor.open_template(page, PACK_FOLDER, DEMO.stem)
    arrived(page, DEMO)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_dragged_file_is_opened(page, name):
    page.evaluate("app.graph.clear()")
    editor.drop(page, WORKFLOWS[name])
    arrived(page, WORKFLOWS[name])


def test_a_node_that_is_missing_is_seen(page, tmp_path):
    """What the two tests above rely on."""
    broken = tmp_path / "broken.json"
    broken.write_text(DEMO.read_text(encoding="utf-8").replace('"EI2Sampler"', '"EI2Gone"'), encoding="utf-8")
    page.evaluate("app.graph.clear()")
    editor.drop(page, broken)
    page.wait_for_function("app.graph._nodes.length")
    assert editor.faulty(page) == ["EI2Gone"]
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")  # closes the list of missing nodes


STATE = """type => {
  const node = app.graph._nodes.find(n => n.type === type);
  return {progress: node.progress, pictures: (node.imgs ?? []).map(i => [i.naturalWidth, i.naturalHeight])};
}"""


def wait_for_picture(page, node: str, height: int) -> dict:
    """Until a picture at least so high is in the node."""
    tall = f"({STATE})({json.dumps(node)}).pictures.some(([w, h]) => h >= {height})"
    page.wait_for_function(tall, timeout=240_000)
    return page.evaluate(STATE, node)


def node_shot(page, node: str) -> bytes:
    box = editor.show(page, node)
    page.wait_for_timeout(300)
    return page.screenshot(clip=box)


def coloured(shot: bytes) -> float:
    """How much of a screenshot is in the strong colours of the miniature model's clips."""
    drawn = np.asarray(Image.open(io.BytesIO(shot)).convert("HSV"))
    return (drawn[..., 1:] > 150).all(axis=-1).mean()  # saturation and value


def test_a_run_shows_progress_pictures_and_results(page):
    editor.load(page, json.loads(DEMO.read_text(encoding="utf-8")))
    before = coloured(node_shot(page, "EI2OneShotTune"))
    editor.start(page, SHORT | {"EI2OneShotTune": TUNING | {"steps": 12}})
    state = wait_for_picture(page, "EI2OneShotTune", 300)  # the first is lower: the curve of the loss alone
    assert 0 < state["progress"] <= 1
    assert coloured(node_shot(page, "EI2OneShotTune")) > before + 0.05
    assert editor.end(page) == []
    assert page.evaluate(STATE, "EI2Sampler")["pictures"]
    editor.show(page, "SaveVideo")
    page.wait_for_function("document.querySelector('video[src*=EI2_demo]')?.readyState >= 2")
    video = page.locator("video[src*=EI2_demo]")  # beside the one that compares
    assert coloured(video.screenshot()) > 0.3
    (text,) = page.evaluate("app.graph._nodes.filter(n => n.type === 'PreviewAny').map(n => n.widgets[0].value)")
    assert "EI² Video Metrics of 2 frames" in text
    assert editor.faulty(page) == []


def test_cancelled_by_its_button_and_run_again(server, page):
    """The steps so far are kept; the second run goes on from them to the end."""
    unfinished = server.folder / "output" / "ei2"
    kept = set(unfinished.glob("unfinished_*.safetensors"))
    editor.load(page, json.loads(DEMO.read_text(encoding="utf-8")))
    editor.start(page, SHORT | {"EI2OneShotTune": TUNING | {"steps": 10, "seed": 82}})
    page.wait_for_function(f"({STATE})('EI2OneShotTune').progress > 0.1", timeout=240_000)
    assert editor.cancel(page) == ["interrupted"]
    assert len(set(unfinished.glob("unfinished_*.safetensors")) - kept) == 1
    assert editor.faulty(page) == []
    log = len(server.log.read_text(encoding="utf-8"))
    assert editor.run(page, {}) == []
    assert "Going on at step" in server.log.read_text(encoding="utf-8")[log:]
    assert editor.faulty(page) == []


def width_of_its_picture(shown) -> int:
    """Of a help page, once it has come."""
    (picture,) = shown.get_by_role("img").all()
    return picture.evaluate("image => image.decode().then(() => image.naturalWidth)")


def test_a_help_page_is_read(page):
    editor.load(page, json.loads(DEMO.read_text(encoding="utf-8")))
    shown = editor.help_page(page, "EI2InflateUNet")
    shown.get_by_text("Turns an image model into a video model.").wait_for()
    assert width_of_its_picture(shown) > 100
    assert shown.get_by_role("listitem").count() > 5  # an input each


@pytest.fixture
def chinese_page(page, server):
    """Another page, of a user who has chosen Chinese."""
    server.request("/settings", {"Comfy.Locale": "zh"})
    opened = page.context.browser.new_page(viewport=page.viewport_size)
    opened.goto(server.url)
    opened.wait_for_function("window.app?.graph && window.app.vueAppReady", timeout=120_000)
    yield opened
    opened.close()
    server.request("/settings", {"Comfy.Locale": "en"})


def test_a_help_page_is_read_in_chinese(chinese_page):
    """With the picture that lies beside the English page."""
    editor.load(chinese_page, json.loads(DEMO.read_text(encoding="utf-8")))
    shown = editor.help_page(chinese_page, "EI2InvertVideo")
    shown.get_by_text("让视频一步步倒退为噪声。").wait_for()
    assert width_of_its_picture(shown) > 100
