"""What a tuning says of itself, in the header of its weights and in the card beside them."""

import platform
from collections.abc import Iterator

import comfy.model_management as mm
import comfyui_version
import psutil
import torch

from ...ei2_modules import __version__

PAIR = ("positive", "negative")
TEXT_INPUTS = ("text", "value", "string", "prompt")  # of nodes that hold words


def machine(device: torch.device) -> dict:
    """Versions and device, in general terms: no names of hosts or folders."""
    return {
        "version": __version__,
        "comfyui": comfyui_version.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": mm.get_torch_device_name(device) if device.type != "cpu" else "cpu",
    }


class PeakMemory:
    """The most memory a run used: of the device where it counts, else of the process, looked at after every step."""

    def __init__(self, device: torch.device):
        self.device, self.seen = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    def look(self) -> None:
        cuda = self.device.type == "cuda"
        now = torch.cuda.max_memory_allocated(self.device) if cuda else psutil.Process().memory_info().rss
        self.seen = max(self.seen, now)

    @property
    def mib(self) -> int:
        return self.seen // 2**20


def losses(values: list[float]) -> dict:
    """In figures: the mean over the first and over the last tenth, and all."""
    tenth = max(1, len(values) // 10)
    first, last = (sum(part) / len(part) for part in (values[:tenth], values[-tenth:])) if values else (None, None)
    return {"loss_first": first, "loss_last": last, "losses": [round(value, 6) for value in values]}


def words_behind(prompt: dict | None, node_id: str | None, name: str) -> str | None:
    """The words that were typed into the nodes before an input of a node, as the graph tells; None if it does not.

    prompt: the host's graph, node id -> class and inputs.
    """
    if not prompt or node_id not in prompt:
        return None
    found = list(dict.fromkeys(_words(prompt, prompt[node_id]["inputs"].get(name), set())))
    return " | ".join(found) or None


def _words(prompt: dict, source, seen: set) -> Iterator[str]:
    if not isinstance(source, list) or not source or source[0] not in prompt or source[0] in seen:
        return
    seen.add(source[0])
    inputs = prompt[source[0]]["inputs"]
    if inputs.keys() >= set(PAIR):  # of Apply ControlNet and its like, which give both back in this order
        inputs = {name: inputs[name] for name in PAIR[source[1] : source[1] + 1]}
    for name, value in inputs.items():
        if isinstance(value, str) and name in TEXT_INPUTS:
            yield value
        yield from _words(prompt, value, seen)
