"""What the graph that is being run tells of a node's inputs. The host's form of it: node id -> class and inputs."""

from collections.abc import Iterator

from comfy_execution.graph_utils import is_link

PAIR = ("positive", "negative")
TEXTS = ("caption", "prompt")  # of Prompt Edit, and its outputs in this order
TEXT_INPUTS = ("text", "value", "string", "prompt")  # of nodes that hold words


def words_behind(prompt: dict | None, node_id: str | None, name: str) -> str | None:
    """The words that were typed into the nodes before an input of a node, as the graph tells; None if it does not."""
    if not prompt or node_id not in prompt:
        return None
    found = list(dict.fromkeys(_words(prompt, prompt[node_id]["inputs"].get(name), set())))
    return " | ".join(filter(None, found)) if found else None


def typed_words(prompt: dict, node_id: str, name: str) -> str | None:
    """As `words_behind`, of an input that words can be typed into too."""
    value = prompt[node_id]["inputs"].get(name)
    return value.strip() if isinstance(value, str) else words_behind(prompt, node_id, name)


def _words(prompt: dict, source, seen: set) -> Iterator[str]:
    if not is_link(source) or source[0] not in prompt or source[0] in seen:
        return
    seen.add(source[0])
    inputs = prompt[source[0]]["inputs"]
    if prompt[source[0]].get("class_type") == "EI2PromptEdit" and source[1] < len(TEXTS):
        name = TEXTS[source[1]]
        inputs = {"text": inputs.get(name)}
    if inputs.keys() >= set(PAIR):  # of Apply ControlNet and its like, which give both back in this order
        inputs = {name: inputs[name] for name in PAIR[source[1] : source[1] + 1]}
    for name, value in inputs.items():
        if isinstance(value, str) and name in TEXT_INPUTS:
            yield value
        yield from _words(prompt, value, seen)
