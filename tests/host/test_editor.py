"""The shipped workflows in ComfyUI's own editor, in headless Chromium, as their user meets them."""

import json
import urllib.request

import editor
import pytest

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium on this machine")

SMALL = {
    "EI2DemoClip": {"frames": 2},
    "ImageFromBatch": {"length": 2},
    "ImageScale": {"width": 64, "height": 64},
    "EI2OneShotTune": {"steps": 2},
    "EI2InvertVideo": {"steps": 2},
}
SHOWN = {"00_demo_model": ["Motion"], "01_first_edit": ["dB PSNR", "Motion"]}  # what the texts say after a run


@pytest.fixture(scope="module", params=SHOWN)
def template(request):
    return request.param


@pytest.fixture(scope="module")
def workflow(server, template):
    """As the template browser gets it."""
    with urllib.request.urlopen(f"{server.url}/api/workflow_templates/ComfyUI-EI2/{template}.json") as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def page(server, workflow):
    with editor.editor(server) as opened:
        editor.load(opened, workflow)
        yield opened


def test_no_node_is_missing_or_changed(page, workflow):
    """Every node is known, and its widgets still hold what the file says."""
    opened = json.loads(page.evaluate("JSON.stringify(app.graph.serialize())"))
    faulty = "n => n.has_errors || !LiteGraph.registered_node_types[n.type]"
    assert page.evaluate(f"app.graph._nodes.filter({faulty}).map(n => n.type)") == []
    saved = {node["id"]: node.get("widgets_values") or [] for node in workflow["nodes"]}
    for node in opened["nodes"]:
        values = node.get("widgets_values") or []
        if not node["type"].startswith("EI2"):
            values = values[: len(saved[node["id"]])]  # a newer ComfyUI may have added widgets to its own nodes
        assert values == saved[node["id"]], node["type"]
    assert len(opened["links"]) == len(workflow["links"])


def test_no_two_nodes_overlap(page):
    boxes = page.evaluate("app.graph._nodes.map(n => [n.title, ...n.boundingRect])")
    for i, (name, x, y, w, h) in enumerate(boxes):
        for other, x2, y2, w2, h2 in boxes[:i]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h, f"{name} lies over {other}"


def test_run_by_clicking(page, template):
    """Run, watch it finish, read the figures in the graph."""
    assert editor.run(page, SMALL) == []
    shown = page.evaluate("app.graph._nodes.filter(n => n.type === 'PreviewAny').map(n => n.widgets[0].value)")
    assert all(any(words in text for text in shown) for words in SHOWN[template])


def test_a_wrong_choice_is_a_red_node(page):
    refused = editor.run(page, {"EI2OneShotTune": {"precision": "fp7"}}, seconds=30)
    assert refused and refused[0].startswith("EI2OneShotTune: ")
    assert "precision is 'fp7': it must be one of auto, bf16, fp16, fp32" in refused[0]
