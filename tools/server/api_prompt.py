"""A saved workflow (what the editor writes) as the API prompt a server runs, by its own node list; and its refusals."""

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3"}
ALWAYS_TUNE = {"resume": "new run", "autosave_every": 0}  # of One-Shot Tune, where a tuning found done shows nothing
UPLOADS = ("image", "video", "audio")
NOT_RUN = {"Note", "MarkdownNote"}


def to_prompt(workflow: dict, object_info: dict) -> dict:
    """{"node id": {"class_type", "inputs"}}. Raises KeyError for a node the server does not know."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    return {
        str(node["id"]): {"class_type": node["type"], "inputs": _inputs(node, object_info[node["type"]], links)}
        for node in workflow["nodes"]
        if node["type"] not in NOT_RUN
    }


def find(prompt: dict, class_type: str, **where: str) -> dict:
    """The inputs of the one node of a class that feeds the named input of another: find(p, "X", EI2Sampler="model")."""
    return prompt[find_id(prompt, class_type, **where)]["inputs"]


def find_id(prompt: dict, class_type: str, **where: str) -> str:
    """As `find`, but the node's id."""
    ids = [i for i, node in prompt.items() if node["class_type"] == class_type]
    for reader, name in where.items():
        sources = {node["inputs"][name][0] for node in prompt.values() if node["class_type"] == reader}
        ids = [i for i in ids if i in sources]
    (only,) = ids
    return only


def faults(answer: dict) -> str:
    """The server's refusal of a prompt, one line a fault."""
    lines = [
        f"{node['class_type']}: {error['message']} {error['details']}".strip()
        for node in answer.get("node_errors", {}).values()
        for error in node["errors"]
    ]
    return "\n".join(lines) or answer["error"]["message"]


def _inputs(node: dict, info: dict, links: dict) -> dict:
    values = iter(node.get("widgets_values", []))
    linked = {slot["name"]: links[slot["link"]] for slot in node["inputs"] if slot.get("link") is not None}
    inputs = {}
    for section in ("required", "optional"):
        of_section = info["input"].get(section, {})
        for name, declared in of_section.items():
            if _is_widget(declared):
                value = next(values, None)  # None: this ComfyUI has a widget that the saved workflow does not know
                if value is not None:
                    inputs[name] = value
                if _option(declared, "control_after_generate"):  # one more widget in the editor
                    next(values, None)
            if name in linked:
                inputs[name] = linked[name]
        if any(_option(declared, f"{kind}_upload") for declared in of_section.values() for kind in UPLOADS):
            next(values, None)  # the button, which the editor sets behind all required widgets
    return inputs


def _is_widget(declared: list) -> bool:
    kind, options = declared[0], (declared[1] if len(declared) > 1 else {})
    return (isinstance(kind, list) or kind in WIDGETS) and not options.get("forceInput")


def _option(declared: list, name: str) -> object:
    return (declared[1] if len(declared) > 1 else {}).get(name)
