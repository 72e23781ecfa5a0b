"""Workflows saved with older versions: they open without a red node, keep their values, get the defaults, and run.

saved/VERSION holds workflows as that version shipped them. tests/static sees to it that they are never edited.
"""

import json
from pathlib import Path

import pytest

from tools import ROOT
from tools.demo import video_files
from tools.demo.template_files import SMALL
from tools.server import api_prompt, editor

from .test_editor import CHANGES

SAVED = Path(__file__).with_name("saved")
FILES = {str(path.relative_to(SAVED).with_suffix("")): path for path in sorted(SAVED.glob("*/*.json"))}
STRIPPED = {"00_demo_model without the newest inputs": ROOT / "workflows" / "00_demo_model.json"}


@pytest.fixture(scope="module")
def nodes(server) -> dict:
    """What the server says of ours."""
    return {name: info for name, info in server.request("/object_info").items() if name.startswith("EI2")}


@pytest.fixture(scope="module")
def workflows(nodes) -> dict:
    read = {name: json.loads(path.read_text(encoding="utf-8")) for name, path in (FILES | STRIPPED).items()}
    return {name: strip(workflow, nodes) if name in STRIPPED else workflow for name, workflow in read.items()}


def strip(workflow: dict, nodes: dict) -> dict:
    """As if saved before the last optional widget of every node was there; new ones are always optional and last."""
    for node in ours(workflow):
        last = node["inputs"][-1]["name"] if node["inputs"] else None
        if last in nodes[node["type"]]["input"].get("optional", {}):
            node["inputs"].pop(), node["widgets_values"].pop()
    return workflow


def ours(workflow: dict) -> list[dict]:
    return [node for node in workflow["nodes"] if node["type"].startswith("EI2")]


def saved_values(node: dict) -> dict:
    names = [i["name"] for i in node["inputs"] if "widget" in i]
    return dict(zip(names, node.get("widgets_values") or [], strict=True))


def default(declared: list):
    """As in /object_info: the first choice where none is named."""
    kind, options = declared
    choices = kind if isinstance(kind, list) else options.get("options", [None])
    return options.get("default", choices[0])


OPENED = """() => Object.fromEntries(app.graph._nodes.map(node => [
  node.id, Object.fromEntries((node.widgets ?? []).map(w => [w.name, w.value])),
]))"""


@pytest.fixture(scope="module")
def opened(server, workflows) -> dict:
    """By name of the workflow: nodes that are missing or red, and the widgets' values by node id."""
    if not editor.chromium():
        pytest.skip("no Chromium: apt install chromium, or set CHROMIUM")
    seen = {}
    with editor.editor(server) as page:
        for name, workflow in workflows.items():
            editor.load(page, workflow)
            seen[name] = editor.faulty(page), page.evaluate(OPENED)
    return seen


@pytest.mark.parametrize("name", FILES | STRIPPED)
def test_it_opens_with_its_values(name, opened, workflows, nodes):
    faulty, values = opened[name]
    assert faulty == []
    for node in ours(workflows[name]):
        saved, declared = saved_values(node), nodes[node["type"]]["input"].get("optional", {})
        own = {
            widget: value for widget, value in values[str(node["id"])].items() if widget in saved or widget in declared
        }
        new = {widget: default(declared[widget]) for widget in own if widget not in saved}
        assert own == saved | new, node["type"]  # beside them a node may show a video in a widget


def test_there_are_new_widgets(opened, workflows):
    """Without any, the test above would say nothing of defaults."""
    for name in ("0.1.0/01_first_edit", *STRIPPED):
        nodes, values = ours(workflows[name]), opened[name][1]
        assert "preset" in [w for n in nodes for w in values[str(n["id"])] if w not in saved_values(n)], name


@pytest.mark.parametrize("name", FILES | STRIPPED)
def test_it_runs(name, server, workflows):
    prompt = api_prompt.to_prompt(workflows[name], server.request("/object_info"))
    changes = CHANGES.get(Path(name).name, SMALL)
    for node in prompt.values():
        node["inputs"].update(changes.get(node["class_type"], {}))
    outputs = server.run(prompt)
    (saved,) = outputs[api_prompt.find_id(prompt, "SaveVideo")]["images"]
    frames = video_files.read(server.output(saved))
    assert len(frames) == changes["EI2DemoClip"]["frames"] and {frame.width for frame in frames} == {64}
