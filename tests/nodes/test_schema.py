"""What saved workflows rely on: node ids, inputs in order, combo spellings, outputs. schema.json is what was promised.

Only fields that every supported ComfyUI has. After a change on purpose (new inputs are optional and last):

    UPDATE_SCHEMA=1 python dev.py test tests/nodes/test_schema.py
"""

import inspect
import json
import os
import re
from pathlib import Path

import pytest

from tools.server.in_process import pack

SNAPSHOT = Path(__file__).with_name("schema.json")
LOCALES = Path(__file__).resolve().parents[2] / "locales"
HOW_TO_UPDATE = (
    "The nodes are not what schema.json promises: saved workflows may break. If that is meant, say so in CHANGELOG.md "
    "and run: UPDATE_SCHEMA=1 python dev.py test tests/nodes/test_schema.py"
)
OPTIONAL_FIELDS = ("default", "min", "max", "step", "options", "multiline", "force_input")


def describe(found) -> dict:
    """The public contract of one node."""
    return {
        "id": found.node_id,
        "display_name": found.display_name,
        "category": found.category,
        "inputs": [describe_input(i) for i in found.inputs],
        "outputs": [{"type": o.get_io_type(), "display_name": o.display_name} for o in found.outputs],
        "is_output_node": bool(found.is_output_node),
    }


def describe_input(value) -> dict:
    described = {"name": value.id, "type": value.get_io_type(), "optional": bool(value.optional)}
    fields = {name: getattr(value, name, None) for name in OPTIONAL_FIELDS}
    described |= {name: v for name, v in fields.items() if v is not None}
    # One more value in a saved workflow: it would shift all that come after.
    return described | ({"control_after_generate": True} if getattr(value, "control_after_generate", None) else {})


def live_schemas() -> dict:
    """Of every node, by id. What lies in the folders of weights, states and videos is no promise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pack("nodes.host.files.weights_folder"), "list_files", list)
        patch.setattr(pack("nodes.host.resume.states"), "list_files", list)
        patch.setattr(pack("nodes.host.video_folder"), "list_files", list)
        patch.setattr(pack("nodes.host.atlas.folder"), "list_files", list)
        patch.setattr(pack("nodes.host.atlas.nla_run"), "list_checkpoints", list)
        return {(found := node.define_schema()).node_id: found for node in pack("nodes.extension").NODES}


LIVE = live_schemas()


def words_of(found) -> dict:
    """What a translation of a node says, as the editor reads it."""
    return {
        "display_name": found.display_name,
        "description": found.description,
        "inputs": {i.id: {"name": i.id, "tooltip": i.tooltip} for i in found.inputs},
        "outputs": {str(k): {"name": o.display_name, "tooltip": o.tooltip} for k, o in enumerate(found.outputs)},
    }


@pytest.fixture(scope="module")
def promised() -> dict:
    """schema.json by node id, written anew first when that is asked for."""
    if os.environ.get("UPDATE_SCHEMA"):
        text = json.dumps([describe(found) for found in LIVE.values()], indent=2, ensure_ascii=False)
        SNAPSHOT.write_text(text + "\n", encoding="utf-8")
        words = json.dumps({i: words_of(found) for i, found in LIVE.items()}, indent=2, ensure_ascii=False)
        (LOCALES / "en" / "nodeDefs.json").write_text(words + "\n", encoding="utf-8")
    return {entry["id"]: entry for entry in json.loads(SNAPSHOT.read_text(encoding="utf-8"))}


@pytest.mark.parametrize("node_id", LIVE)
def test_node_is_as_promised(node_id, promised):
    assert describe(LIVE[node_id]) == promised.get(node_id), HOW_TO_UPDATE


def test_no_node_is_gone_or_moved(promised):
    assert list(LIVE) == list(promised), HOW_TO_UPDATE


@pytest.mark.parametrize("node_id", LIVE)
def test_every_node_is_complete(node_id):
    inputs = LIVE[node_id].inputs
    assert node_id.startswith("EI2")
    assert LIVE[node_id].description
    assert [i.id for i in inputs if not (i.tooltip or "").strip()] == [], "inputs without a tooltip"
    optional = [bool(i.optional) for i in inputs]
    assert optional == sorted(optional), "required inputs come before optional ones"
    assert len({i.id for i in inputs}) == len(inputs)


@pytest.mark.parametrize("node", pack("nodes.extension").NODES, ids=list(LIVE))
def test_a_newer_host_finds_and_folds(node, monkeypatch, folders):
    """What ComfyUI 0.3.75 does not know, on a host that does."""
    io = pack("nodes.host.api").io
    monkeypatch.setattr(io.Schema, "search_aliases", None, raising=False)
    monkeypatch.setattr(io.Input, "advanced", None, raising=False)
    found = node.define_schema()
    assert found.search_aliases[0] == "ei2"  # nobody types the superscript
    assert len(found.search_aliases) > 1
    assert found.search_aliases == [words.strip() for words in found.search_aliases]
    expert = re.search('expert="(.*)"', inspect.getsource(node.define_schema))
    wanted = expert[1].split(", ") if expert else []
    assert [item.id for item in found.inputs if item.advanced] == [i.id for i in found.inputs if i.id in wanted]
    assert set(wanted) <= {item.id for item in found.inputs}, "an id that is no input"


@pytest.mark.parametrize("node_id", LIVE)
def test_defaults_are_allowed_values(node_id):
    for value in LIVE[node_id].inputs:
        default, options = getattr(value, "default", None), getattr(value, "options", None)
        if default is not None and options:
            assert default in options
        if default is not None and getattr(value, "min", None) is not None:
            assert value.min <= default <= value.max


def translation(language) -> dict:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_the_english_words_are_those_of_the_nodes(promised):
    assert translation("en") == {node_id: words_of(found) for node_id, found in LIVE.items()}, HOW_TO_UPDATE


def paths(words, prefix=()):
    """Where there are words: (node, "inputs", name, "tooltip"), ..."""
    if isinstance(words, str):
        return {prefix}
    return {path for name, value in words.items() for path in paths(value, (*prefix, name))}


def test_the_chinese_words_are_complete():
    english, chinese = translation("en"), translation("zh")
    assert paths(chinese) == paths(english)
    for path in paths(chinese):
        text = chinese
        for name in path:
            text = text[name]
        assert text.strip(), path
        if path[-1] in ("tooltip", "description"):
            assert any("\u4e00" <= letter <= "\u9fff" for letter in text), path
