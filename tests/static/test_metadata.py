"""Files that say the same thing must agree: requirements, version, node list, help pages, templates."""

import ast
import hashlib
import json
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def project() -> dict:
    """pyproject.toml; its reader came with Python 3.11, and for 3.10 pytest brings one."""
    return pytest.importorskip("tomllib" if sys.version_info >= (3, 11) else "tomli").loads(read("pyproject.toml"))


def requirements() -> list[str]:
    return [line for line in read("requirements.txt").splitlines() if line.strip()]


def assigned(path: str, name: str) -> ast.expr:
    """The value of `name = ...` in a file."""
    nodes = (n for n in ast.parse(read(path)).body if isinstance(n, ast.Assign))
    return next(n.value for n in nodes if any(getattr(t, "id", None) == name for t in n.targets))


def version() -> str:
    return ast.literal_eval(assigned("ei2_modules/__init__.py", "__version__"))


def schema_of(cls: ast.ClassDef, functions: dict[str, ast.FunctionDef]) -> tuple[str, list[str]] | None:
    """(id, names of inputs) of a node class, following calls of functions in the same file such as `_seed()`."""
    calls = [c for c in ast.walk(cls) if isinstance(c, ast.Call)]
    keywords = [k for c in calls for k in c.keywords]
    ids = [k.value.value for k in keywords if k.arg == "node_id"]
    lists = [k.value for k in keywords if k.arg == "inputs"]
    return (ids[0], [name for tree in lists for name in input_names(tree, functions)]) if ids else None


def input_names(tree: ast.AST, functions: dict[str, ast.FunctionDef]) -> list[str]:
    names = []
    for call in (c for c in ast.walk(tree) if isinstance(c, ast.Call)):
        if getattr(call.func, "attr", None) == "Input":
            names.append(ast.literal_eval(call.args[0]))
        elif getattr(call.func, "id", None) in functions:
            names += input_names(functions[call.func.id], functions)
    return names


def schemas() -> dict[str, tuple[str, list[str]]]:
    """Class name -> (id, names of inputs), of every node file."""
    found = {}
    for path in sorted(ROOT.glob("nodes/*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        functions = {n.name: n for n in body if isinstance(n, ast.FunctionDef)}
        classes = {n.name: schema_of(n, functions) for n in body if isinstance(n, ast.ClassDef)}
        found |= {name: schema for name, schema in classes.items() if schema}
    return found


def node_classes() -> list[str]:
    return [e.id for e in assigned("nodes/extension.py", "NODES").elts]


SCHEMAS = schemas()
INPUTS = dict(SCHEMAS.values())
WITHOUT_INPUTS = ["EI2LoadDemoModel"]


def test_the_readers_here_see_every_node():
    assert sorted(node_classes()) == sorted(SCHEMAS)
    assert [node_id for node_id, names in INPUTS.items() if not names] == WITHOUT_INPUTS
    assert all(len(set(names)) == len(names) for names in INPUTS.values())


def test_requirements_are_the_projects_dependencies():
    assert requirements() == project()["project"]["dependencies"]


@pytest.mark.parametrize("line", requirements())
def test_requirements_leave_the_host_its_versions(line):
    name = re.split(r"[^\w.-]", line)[0].lower()
    assert not name.startswith("torch"), "torch comes with the host"
    assert not re.search(r"<|==|~=|!=", line), "an upper cap or a pin would change what the host has"


def test_version():
    assert project()["project"]["version"] == version()


def test_changelog_has_a_section_for_the_version():
    assert re.search(rf"^##+ .*(?<![\d.]){re.escape(version())}(?![\d.])", read("CHANGELOG.md"), re.MULTILINE)


def test_node_list():
    assert list(json.loads(read("node_list.json"))) == [SCHEMAS[name][0] for name in node_classes()]


@pytest.mark.parametrize("node_id", INPUTS)
def test_help_page_names_every_input(node_id):
    page = read(f"web/docs/{node_id}.md")
    assert [name for name in INPUTS[node_id] if not re.search(rf"\b{name}\b", page)] == []


def test_no_help_page_is_left_over():
    assert {p.stem for p in ROOT.glob("web/docs/*.md")} <= INPUTS.keys()


def test_every_template_has_its_picture():
    templates = sorted(ROOT.glob("workflows/*.json"))
    assert templates
    assert [t.name for t in templates if not t.with_suffix(".jpg").exists()] == []


def nodes_of(path: str) -> list[dict]:
    """Of a template or a blueprint, those that its subgraphs fold too; without notes and subgraphs themselves."""
    workflow = json.loads(read(path))
    folded = workflow.get("definitions", {}).get("subgraphs", [])
    nodes = workflow["nodes"] + [node for subgraph in folded for node in subgraph["nodes"]]
    return [n for n in nodes if n["type"] not in ("MarkdownNote", "Note", *(s["id"] for s in folded))]


SHARED = [
    str(p.relative_to(ROOT)) for folder in ("workflows", "subgraphs") for p in sorted(ROOT.glob(f"{folder}/*.json"))
]


@pytest.mark.parametrize("path", SHARED)
def test_every_node_says_where_it_comes_from(path):
    """So that ComfyUI Manager can install what is missing."""
    for node in nodes_of(path):
        ours = node["type"] in INPUTS
        assert node["properties"]["cnr_id"] == ("ei2-video" if ours else "comfy-core"), node["type"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", node["properties"]["ver"]), node["type"]
        assert ours or not node["type"].startswith("EI2"), node["type"]


INPUT, OUTPUT = -10, -20  # ids that a subgraph's links have for its own inputs and outputs


def flat(workflow: dict) -> tuple[dict, set]:
    """(types, wires) of all nodes, by ids: each input and output of a subgraph is one too."""
    types = {node["id"]: node["type"] for node in workflow["nodes"]}
    folded = {s["id"]: s for s in workflow.get("definitions", {}).get("subgraphs", [])}
    ends = [((a, i), (b, j)) for _, a, i, b, j, _ in workflow["links"]]
    inside = {name: (name, types.pop(name)) for name in [n for n, t in types.items() if t in folded]}
    wires = {((a, "out", i) if a in inside else a, (b, "in", j) if b in inside else b) for (a, i), (b, j) in ends}
    for name, kind in inside.values():
        types |= {(name, node["id"]): node["type"] for node in folded[kind]["nodes"]}
        for link in folded[kind]["links"]:
            a, b = link["origin_id"], link["target_id"]
            source = (name, "in", link["origin_slot"]) if a == INPUT else (name, a)
            wires.add((source, (name, "out", link["target_slot"]) if b == OUTPUT else (name, b)))
    return types, wires


def ancestors(workflow: dict, node_type: str) -> set[str]:
    """The types of all nodes that lead into nodes of a type; empty where there are none of it."""
    types, wires = flat(workflow)
    found = {node for node, name in types.items() if name == node_type}
    while more := {source for source, target in wires if target in found} - found:
        found |= more
    return {types[node] for node in found if node in types}


@pytest.mark.parametrize("path", [path for path in SHARED if path.startswith("workflows")])
@pytest.mark.parametrize("node_type", ["EI2OneShotTune", "EI2InvertVideo"])
def test_new_words_run_the_edit_alone(path, node_type):
    """ComfyUI runs again what lies behind a node that changed: neither tuning nor inversion lies behind Prompt Edit."""
    workflow = json.loads(read(path))
    # In 04 one node has both texts; in 11 the edit's first pass is inverted too.
    inverted = [f"workflows/{name}.json" for name in ("04_controlnet", "11_new_shape")]
    again = node_type == "EI2InvertVideo" and path in inverted
    assert ("EI2PromptEdit" in ancestors(workflow, node_type)) is again
    edits = ancestors(workflow, "EI2Sampler")
    assert ("EI2PromptEdit" in edits) is bool(edits)


@pytest.mark.parametrize("path", [path for path in SHARED if path.startswith("workflows/08")])
def test_new_words_fit_no_atlas_again(path):
    workflow = json.loads(read(path))
    assert "CLIPTextEncode" not in ancestors(workflow, "EI2FitAtlas")
    assert {"CLIPTextEncode", "EI2FitAtlas"} < ancestors(workflow, "EI2RenderAtlas")


@pytest.mark.parametrize("path", [path for path in SHARED if path.startswith("subgraphs")])
def test_a_blueprint_is_one_node(path):
    """ComfyUI shows no other; and 0.3.75 reads the file in whatever encoding the system has."""
    workflow = json.loads((ROOT / path).read_text(encoding="ascii"))
    (node,), (folded,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert node["type"] == folded["id"] and node["title"] == folded["name"] == Path(path).stem
    for side in ("inputs", "outputs"):
        assert [slot["name"] for slot in node[side]] == [slot["name"] for slot in folded[side]]
    assert workflow["extra"]["BlueprintDescription"]


# Workflows as a version shipped them; tests/host/test_saved_workflows.py opens and runs them.
SAVED = "tests/host/saved"
RELEASED = {
    "0.1.0/01_first_edit.json": "f71b4fe6240e8cdb5f2685376351257f0a911b126d9851ffc3364e086e647f8e",
    "0.2.0/00_demo_model.json": "feaeb1b4dd4b8424a59f968b418431c7970e98586997d1d61405912a44e833ec",
    "0.2.0/01_first_edit.json": "fbf05ca2c252962362189be35e77c1ee0963fdde96581b5246d9381de84c2016",
    "0.2.0/08_stable_video_demo.json": "3bfa97a9324cb81625f5ac53c69d2e26c11e9ced28569ee0603cd42f556623bb",
}


def test_saved_workflows_are_what_was_released():
    """They stay as they are: what no longer reads them is to be mended. A release adds copies of its templates."""
    paths = [p.relative_to(ROOT / SAVED).as_posix() for p in sorted((ROOT / SAVED).glob("*/*"))]
    assert {path: hashlib.sha256(read(f"{SAVED}/{path}").encode()).hexdigest() for path in paths} == RELEASED


def test_the_version_has_saved_workflows():
    assert any(path.startswith(f"{version()}/") for path in RELEASED)
