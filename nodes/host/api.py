"""The node schema of the host, in one place, so that fields newer than 0.3.75 are tested for only here."""

from comfy_api.latest import ComfyExtension, io, ui

__all__ = [
    "ATLAS", "CATEGORY", "CONTROL", "FLOW", "KEY_FRAMES", "LOSS_MAP", "NULL_TEXT", "PROMPT_EDIT", "WEIGHTS",
    "ComfyExtension", "check_choices", "io", "schema", "seed_input", "ui",
]  # fmt: skip

CATEGORY = "EI²"
WEIGHTS = io.Custom("EI2_WEIGHTS")
PROMPT_EDIT, CONTROL, NULL_TEXT = (io.Custom(f"EI2_{name}") for name in ("PROMPT_EDIT", "CONTROL", "NULL_TEXT"))
LOSS_MAP = io.Custom("LOSS_MAP")
ATLAS = io.Custom("EI2_ATLAS")
FLOW = io.Custom("EI2_FLOW")
KEY_FRAMES = io.Custom("EI2_KEY_FRAMES")


def schema(search: str, expert: str = "", **fields) -> io.Schema:
    """io.Schema, with what is newer than ComfyUI 0.3.75 where the host knows it.

    search: words by which the node search shall find the node beside its name, split by commas. expert: ids of inputs
    that are folded away until they are asked for.
    """
    found = io.Schema(**fields)
    if hasattr(found, "search_aliases"):
        found.search_aliases = ["ei2", *search.split(", ")]
    for item in found.inputs:
        if item.id in expert.split(", ") and hasattr(item, "advanced"):
            item.advanced = True
    return found


def seed_input(default: int, tooltip: str) -> io.Int.Input:
    """A seed that the editor does not change by itself: a new one would tune again."""
    return io.Int.Input(
        "seed", default=default, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=False, tooltip=tooltip
    )


def check_choices(node: type[io.ComfyNode], **chosen: str | None) -> bool | str:
    """For `validate_inputs`: True, or what is wrong. ComfyUI 0.3.75 does not check the combos of such nodes itself.

    A value of None comes from another node and is not known before the run.
    """
    options = {item.id: item.options for item in node.define_schema().inputs if item.id in chosen}
    for name, value in chosen.items():
        if value is not None and value not in options[name]:
            return f"{name} is {value!r}: it must be one of {', '.join(options[name])}."
    return True
