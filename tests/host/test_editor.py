"""The shipped workflows in ComfyUI's own editor, in headless Chromium, as their user meets them."""

import json

import pytest

from tools import ROOT
from tools.demo.template_files import SMALL
from tools.server import editor

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium: apt install chromium, or set CHROMIUM")

CHANGES = {  # others: SMALL
    "05_long_clip": SMALL
    | {"EI2LoadClip": {"frames": 18, "long_side": 64}, "EI2OneShotTune": {"steps": 2, "window": 4}},
    "08_stable_video_demo": SMALL | {"EI2DemoClip": {"frames": 8}, "EI2AtlasKeyFrames": {"frames": "0, 4, 7"}},
}
SHOWN = {  # what each text in the graph says after a run
    "00_demo_model": ["Motion"],
    "01_first_edit": ["dB PSNR", "Motion"],
    "02_tune_once": [""],  # its second half is muted; see below
    "03_masked_edit": ["dB PSNR", "Motion"],
    "04_controlnet": ["dB PSNR", "Motion"],
    "05_long_clip": ["18 frames"],
    "06_compare": ["Motion"] * 4,
    "07_sdxl": ["dB PSNR", "Motion"],
    "08_stable_video": ["reconstruction, PSNR", "inter-frame propagation", "Motion"],
    "08_stable_video_demo": ["reconstruction, PSNR", "inter-frame propagation"],
    "09_paint_on_the_atlas": ["reconstruction, PSNR"],
    "10_edit_in_a_minute": ["dB PSNR", "Motion"],
    "11_new_shape": ["Motion", "is carried"],
}


@pytest.fixture(scope="module")
def browser(server):
    with editor.editor(server) as opened:
        yield opened


@pytest.fixture(scope="module", params=SHOWN)
def template(request):
    return request.param


@pytest.fixture(scope="module")
def workflow(server, template):
    """As the template browser gets it."""
    return server.request(f"/api/workflow_templates/ComfyUI-EI2/{template}.json")


@pytest.fixture(scope="module")
def page(browser, workflow):
    editor.load(browser, workflow)
    return browser


def test_every_template_is_tested():
    assert sorted(SHOWN) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_no_node_is_missing_or_changed(page, workflow):
    """Every node is known, and its widgets still hold what the file says."""
    opened = json.loads(page.evaluate("JSON.stringify(app.graph.serialize())"))
    assert editor.faulty(page) == []
    saved = {node["id"]: node.get("widgets_values") or [] for node in workflow["nodes"]}
    for node in opened["nodes"]:
        values = node.get("widgets_values") or []
        if not node["type"].startswith("EI2"):
            values = values[: len(saved[node["id"]])]  # a newer ComfyUI may have added widgets to its own nodes
        assert values == saved[node["id"]], node["type"]
    assert len(opened["links"]) == len(workflow["links"])


def test_no_two_nodes_overlap(page):
    assert editor.overlaps(page) == []
    editor.use_nodes_2(page, True)
    drawn = page.locator("[data-node-id]").count()
    found = editor.overlaps(page)
    editor.use_nodes_2(page, False)
    assert drawn and found == []


def test_run_by_clicking(page, template):
    """Run, watch it finish, read the figures in the graph."""
    assert editor.run(page, CHANGES.get(template, SMALL)) == []
    assert all(words in text for words, text in zip(SHOWN[template], texts(page), strict=True))


@pytest.mark.parametrize("template", ["02_tune_once"], indirect=True)
def test_tune_once_then_edit_with_the_file(server, page):
    """As its note says; the second run would tune anew, were it not muted, and saves nothing."""
    assert editor.run(page, SMALL) == []
    saved = sorted((server.folder / "output" / "ei2").glob("my_tuned_clip*.safetensors"))
    assert saved
    editor.choose(page, "3  First run: tune on this clip and save", "Set Group Nodes to Never")
    editor.choose(page, "4  From then on: edit with the saved file", "Set Group Nodes to Always")
    assert editor.run(page, SMALL | {"EI2OneShotTune": {"steps": 3}}) == []
    assert "dB PSNR" in texts(page)[0]
    assert sorted((server.folder / "output" / "ei2").glob("my_tuned_clip*.safetensors")) == saved


def texts(page) -> list[str]:
    """What the nodes that show text say, in the order of the file."""
    return page.evaluate("app.graph._nodes.filter(n => n.type === 'PreviewAny').map(n => n.widgets[0].value ?? '')")


@pytest.mark.parametrize("template", ["01_first_edit"], indirect=True)
def test_a_wrong_choice_is_a_red_node(page):
    refused = editor.run(page, {"EI2OneShotTune": {"precision": "fp7"}}, seconds=120)
    assert refused and refused[0].startswith("EI2OneShotTune: ")
    assert "precision is 'fp7': it must be one of auto, bf16, fp16, fp32" in refused[0]
