"""The shipped workflow 01_first_edit on the server of tests/conftest.py, with a random-weight SD1.x checkpoint."""

import json
import os
from types import SimpleNamespace

import pytest

from tools import ROOT

if os.environ.get("COMFYUI_PATH"):
    from tools.demo import clip
    from tools.server import api_prompt
else:
    collect_ignore_glob = ["test_*.py"]  # `python dev.py test` finds or installs a host

SMALL = {"frames": 3, "size": 64, "steps": 3, "caption": "a rabbit", "prompt": "a fox", "kind": None}


@pytest.fixture
def first_edit(server):
    """A function making the shipped workflow's prompt, small: first_edit(EI2OneShotTune={"seed": 1})."""

    def make(**changes):
        prompt = clip.workflow_prompt(SimpleNamespace(**SMALL), server)
        api_prompt.find(prompt, "EI2InvertVideo")["steps"] = 4
        for class_type, inputs in changes.items():
            api_prompt.find(prompt, class_type).update(inputs)
        return prompt

    return make


@pytest.fixture(scope="session")
def ids():
    return list(json.loads((ROOT / "node_list.json").read_text(encoding="utf-8")))
