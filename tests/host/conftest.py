"""A real ComfyUI server with the pack and a random-weight SD1.x checkpoint, shared by the tests of this folder."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[2]

if os.environ.get("COMFYUI_PATH"):
    sys.path.insert(0, str(ROOT / "tools"))
    import api_prompt
    import comfy_server
    import demo_clip
    import template_files
else:
    collect_ignore_glob = ["test_*.py"]  # `python dev.py test` finds or installs a host

SMALL = {"frames": 3, "size": 64, "steps": 3, "caption": "a rabbit", "prompt": "a fox"}


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with comfy_server.Server(tmp_path_factory.mktemp("comfyui")) as running:
        checkpoint = demo_clip.random_checkpoint()
        demo_clip.stage(running, demo_clip.DEMO_NAMES, checkpoint, demo_clip.bunny(), SMALL["frames"])
        template_files.stage(running, 18)  # more than fit into one window
        yield running


@pytest.fixture
def first_edit(server):
    """A function making the shipped workflow's prompt, small: first_edit(EI2OneShotTune={"seed": 1})."""

    def make(**changes):
        prompt = demo_clip.workflow_prompt(SimpleNamespace(**SMALL), server)
        api_prompt.find(prompt, "EI2InvertVideo")["steps"] = 4
        for class_type, inputs in changes.items():
            api_prompt.find(prompt, class_type).update(inputs)
        return prompt

    return make


@pytest.fixture(scope="session")
def ids():
    return list(json.loads((ROOT / "node_list.json").read_text(encoding="utf-8")))
