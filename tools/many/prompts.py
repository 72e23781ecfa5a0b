"""A workflow and a job as the prompt a server runs."""

import hashlib
import json
from pathlib import Path

from ..server.api_prompt import NOT_RUN, find, to_prompt
from .jobs import Job

MUTED, BYPASSED = 2, 4  # a node's mode in a saved workflow
EXPORT = "save it with Workflow > Export (API), and give that file"


def load(path: Path) -> dict:
    """A saved workflow, or one exported for the API. Raises ValueError."""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is not a workflow that can be read: {error}") from error
    if not _is_saved(workflow):
        nodes = workflow.values() if isinstance(workflow, dict) else [None]
        if not all(isinstance(node, dict) and "class_type" in node for node in nodes):
            raise ValueError(f"{path} is not a workflow of ComfyUI.")
        return workflow
    off = [node["type"] for node in workflow["nodes"] if node.get("mode") in (MUTED, BYPASSED)]
    if off:
        raise ValueError(f"{path} has nodes switched off ({', '.join(off)}): {EXPORT}.")
    if workflow.get("definitions", {}).get("subgraphs"):
        raise ValueError(f"{path} has subgraphs: {EXPORT}.")
    return workflow


def digest(workflow: dict) -> str:
    """Of what is computed: where nodes stand, and notes, do not count."""
    if _is_saved(workflow):
        nodes = [node for node in workflow["nodes"] if node["type"] not in NOT_RUN]
        workflow = {"links": workflow["links"], "nodes": [_essence(node) for node in nodes]}
    return hashlib.sha256(json.dumps(workflow, sort_keys=True).encode()).hexdigest()


def missing_nodes(workflow: dict, object_info: dict) -> list[str]:
    """The node classes that a server lacks."""
    if _is_saved(workflow):
        names = {node["type"] for node in workflow["nodes"]} - NOT_RUN
    else:
        names = {node["class_type"] for node in workflow.values()}
    return sorted(names - object_info.keys())


def make(workflow: dict, object_info: dict, job: Job, clip: str) -> dict:
    """The prompt of a job whose clip the server has as `clip`. Raises ValueError when the workflow does not suit."""
    prompt = to_prompt(workflow, object_info) if _is_saved(workflow) else json.loads(json.dumps(workflow))
    ours = any(node["class_type"] == "EI2LoadClip" for node in prompt.values())
    _set(prompt, "EI2LoadClip" if ours else "LoadVideo", "file", clip)
    edits = {i for i, node in prompt.items() if node["class_type"] == "EI2PromptEdit"}
    if edits:
        _set(prompt, "EI2PromptEdit", "caption", job.caption)
        _set(prompt, "EI2PromptEdit", "prompt", job.prompt)
    else:
        _set(prompt, "CLIPTextEncode", "text", job.prompt, EI2Sampler="positive")
    if not edits or _tuned_under(prompt) - edits:  # a caption apart, so that another prompt does not tune again
        _set(prompt, "CLIPTextEncode", "text", job.caption, EI2OneShotTune="positive")
    if any(node["class_type"] == "EI2SaveWeights" for node in prompt.values()):
        _set(prompt, "EI2SaveWeights", "file_name", job.name)
    for setting, text in job.settings.items():
        class_type, name = setting.split(".")
        _set(prompt, class_type, name, _value(text))
    return prompt


def _tuned_under(prompt: dict) -> set[str]:
    """The nodes whose text a One-Shot Tune learns the clip under."""
    return {node["inputs"]["positive"][0] for node in prompt.values() if node["class_type"] == "EI2OneShotTune"}


def _set(prompt: dict, class_type: str, name: str, value, **where: str) -> None:
    try:
        find(prompt, class_type, **where)[name] = value
    except (KeyError, ValueError) as error:
        into = "".join(f" that leads into {reader}.{slot}" for reader, slot in where.items())
        raise ValueError(f"The workflow must have exactly one node {class_type}{into}.") from error


def _value(text: str):
    """A cell as JSON where it is JSON: 20, 3e-5, true; else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _essence(node: dict) -> list:
    return [node["id"], node["type"], node.get("widgets_values")]


def _is_saved(workflow) -> bool:
    return isinstance(workflow, dict) and isinstance(workflow.get("nodes"), list)
