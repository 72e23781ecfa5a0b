"""What GitHub reads of this repository: workflows, and forms for issues."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / ".github").rglob("*.yml"))
FORMS = [path for path in FILES if path.parent.name == "ISSUE_TEMPLATE"]
WORKFLOWS = [path for path in FILES if path.parent.name == "workflows"]
FIELDS = {"markdown", "textarea", "input", "dropdown", "checkboxes"}
NEWEST = "3.13"


def load(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def python_faults(versions: list, requires: str) -> list[str]:
    """Of a matrix: every minor version from the oldest that `requires-python` allows to the newest tried, as text."""
    (oldest,) = re.fullmatch(r">=3\.(\d+)", requires).groups()
    wanted = [f"3.{minor}" for minor in range(int(oldest), int(NEWEST[2:]) + 1)]
    return [] if versions == wanted else [f"{versions}, not {wanted}"]


def form_faults(form: dict) -> list[str]:
    """What GitHub refuses a form for, and then shows a blank page instead."""
    faults = [f"no {key}" for key in ("name", "description", "body") if not form.get(key)]
    fields = form.get("body") or []
    faults += [f"type {field.get('type')}" for field in fields if field.get("type") not in FIELDS]
    asked = [field for field in fields if field.get("type") != "markdown"]
    faults += [f"no label: {field}" for field in asked if not field.get("attributes", {}).get("label")]
    ids = [field.get("id") for field in asked]
    return faults + [f"id {name}" for name in ids if ids.count(name) > 1 or not re.fullmatch(r"[\w-]+", name or "")]


def requires_python() -> str:
    return re.search(r'^requires-python = "(.*)"$', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.M)[1]


def words_of(form: dict) -> str:
    return " ".join(str(field["attributes"]) for field in form["body"])


FORM = {"name": "n", "description": "d", "body": [{"type": "input", "id": "a", "attributes": {"label": "A"}}]}
BAD_FORMS = {
    "no name": {**FORM, "name": ""},
    "nothing asked": {**FORM, "body": None},
    "unknown field": {**FORM, "body": [{"type": "text", "id": "a", "attributes": {"label": "A"}}]},
    "no label": {**FORM, "body": [{"type": "input", "id": "a", "attributes": {}}]},
    "twice the same id": {**FORM, "body": FORM["body"] * 2},
    "an id with a space": {**FORM, "body": [{"type": "input", "id": "a b", "attributes": {"label": "A"}}]},
}
BAD_MATRICES = {
    "a number: 3.1": [3.10, "3.11", "3.12", "3.13"],
    "without the oldest": ["3.11", "3.12", "3.13"],
    "with an older one": ["3.9", "3.10", "3.11", "3.12", "3.13"],
    "a gap": ["3.10", "3.11", "3.13"],
    "without the newest": ["3.10", "3.11", "3.12"],
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_can_be_read(path):
    assert isinstance(load(path), dict)


def test_the_checks_here_see_files():
    assert FORMS and WORKFLOWS and len(FORMS + WORKFLOWS) == len(FILES)


def test_tests_run_on_every_python_the_project_allows():
    versions = load(ROOT / ".github/workflows/test.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert python_faults(versions, requires_python()) == []


def test_everything_names_the_same_oldest_python():
    oldest = requires_python().removeprefix(">=")
    dev = ast.parse((ROOT / "dev.py").read_text(encoding="utf-8"))
    compared = [node for node in ast.walk(dev) if isinstance(node, ast.Compare) and "version_info" in ast.dump(node)]
    assert [ast.literal_eval(node.comparators[0]) for node in compared] == [tuple(map(int, oldest.split(".")))]
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'target-version = "py{oldest.replace(".", "")}"' in pyproject


@pytest.mark.parametrize("name", BAD_MATRICES)
def test_a_wrong_matrix_is_seen(name):
    assert python_faults(BAD_MATRICES[name], ">=3.10")


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_has_jobs_that_do_something(path):
    workflow = load(path)
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert workflow[True], "when it runs: YAML reads the key `on` as true"
    assert steps and all(("run" in step) != ("uses" in step) for step in steps)
    assert all("@" in step["uses"] for step in steps if "uses" in step)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one_that_github_shows(path):
    assert form_faults(load(path)) == []


@pytest.mark.parametrize("name", BAD_FORMS)
def test_a_wrong_form_is_seen(name):
    assert form_faults(BAD_FORMS[name]) and not form_faults(FORM)


def test_the_form_for_bugs_names_things_as_the_pack_does():
    """The node and the folders that write the run card."""
    source = (ROOT / "nodes/tuned_weights.py").read_text(encoding="utf-8")
    asked = words_of(load(ROOT / ".github/ISSUE_TEMPLATE/bug.yml"))
    for name in ("Save EI² Weights", "models/ei2", "output/ei2"):
        assert name in source and name in asked


def test_the_form_for_figures_asks_for_what_there_is():
    """The command and its options, and the first and last lines of what it prints."""
    form = load(ROOT / ".github/ISSUE_TEMPLATE/gpu.yml")
    (command,) = re.findall(r"python dev\.py bench (\w+)( .*)", words_of(form).replace("\\n", "\n"))
    name, options = command
    (program,) = (ROOT / "benchmarks").glob(f"*/{name}.py")
    assert "report.markdown(" in program.read_text(encoding="utf-8")
    dev = (ROOT / "dev.py").read_text(encoding="utf-8")
    assert all(f'add_argument("{option}")' in dev for option in re.findall(r"--\w+", options)) and "--" in options
    assert "repeat: " in (ROOT / "benchmarks/common/report.py").read_text(encoding="utf-8")
