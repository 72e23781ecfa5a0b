"""The pack of this process, loaded beside ours, and a line in a file for every case that was run."""

import json
import os
from pathlib import Path

import pytest
import torch

from tools.server.in_process import host

from .. import loaded_host
from .__main__ import PACK, RESULTS
from .loading import load

LONGEST = 300  # letters of an error in the table

if loaded_host.load():
    host("utils.extra_config")  # as main.py does first: `nodes` puts a folder with another `utils` on the path


@pytest.fixture(scope="session")
def before():
    """What our nodes give without the pack."""
    from .edit import whole_way

    with torch.inference_mode():
        return whole_way()


@pytest.fixture(scope="session", autouse=True)
def loaded(before):
    """The pack, from here to the end of the process."""
    try:
        load(Path(os.environ[PACK]))
    except RuntimeError as error:
        pytest.skip(f"ComfyUI does not load the pack: {error}")


@pytest.fixture(autouse=True)
def host_mode(loaded):
    """Nodes run under inference mode, as the server runs them."""
    with torch.inference_mode():
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if report.when == "call" or (report.when == "setup" and not report.passed):
        with open(os.environ[RESULTS], "a", encoding="utf-8") as file:
            file.write(json.dumps([title(item), result(report, call)]) + "\n")
    return report


def title(item) -> str:
    """The first paragraph of its docstring; {names} in it are parameters."""
    text = item.function.__doc__.split("\n\n")[0]
    return text.format(**item.callspec.params) if hasattr(item, "callspec") else text


def result(report, call) -> str:
    """In words, with what was measured."""
    word = {"passed": "holds", "failed": "failed", "skipped": "not run"}[report.outcome]
    return ": ".join(filter(None, (word, *reasons(report, call.excinfo))))


def reasons(report, excinfo) -> list[str]:
    """The numbers say more than the assertion that they did not satisfy."""
    measured = [f"{name} {value}" for name, value in report.user_properties]
    if excinfo is None or (measured and isinstance(excinfo.value, AssertionError)):
        return ["; ".join(measured)]
    kind = "" if report.skipped or isinstance(excinfo.value, AssertionError) else f"{excinfo.typename}: "
    return ["; ".join([kind + str(excinfo.value).strip().split("\n")[0][:LONGEST], *measured])]
