"""The edits that are asked for: one prompt a line, each at every value of what is swept."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from ....ei2_modules.attention.control.options import KINDS, ControlOptions
from ....ei2_modules.errors import EI2Error

FREE = "without control"
KIND_CHOICES = (*KINDS, FREE)
NOTHING = "nothing"


@dataclass(frozen=True)
class Edit:
    """One of them. options: None without control."""

    prompt: str
    kind: str
    cfg: float
    strength: float
    seed: int
    options: ControlOptions | None
    value: str = ""  # of what is swept, in words

    @property
    def label(self) -> str:
        """Two lines: the prompt, and below it what else tells the edit from others."""
        return f"{self.prompt}\n{self.kind}{', ' * bool(self.value)}{self.value}"

    @property
    def name(self) -> str:
        """The same in one line."""
        return self.label.replace("\n", ", ")


def _number(name: str) -> Callable[[Edit, float], Edit]:
    return lambda edit, value: replace(edit, **{name: value})


def _share(name: str) -> Callable[[Edit, float], Edit]:
    def change(edit: Edit, value: float) -> Edit:
        if edit.options is None:
            raise EI2Error(f"{name} is swept, and {edit.prompt!r} is {FREE}, which has none. Choose a kind of edit.")
        return replace(edit, options=replace(edit.options, **{name: value}))

    return change


# what can be swept -> how an edit is changed by a value
SWEEPS = {
    NOTHING: None,
    "cfg": _number("cfg"),
    "strength": _number("strength"),
    "seed": lambda edit, value: replace(edit, seed=int(value)),
    "cross_share": _share("cross_share"),
    "self_share": _share("self_share"),
    "blend_threshold": _share("blend_threshold"),
}


def listed(prompts: str, kind: str, cfg: float, strength: float, seed: int, sweep: str, values: str) -> list[Edit]:
    """All edits: prompt after prompt, and of each value after value. Raises EI2Error where there is none."""
    lines = [line.strip() for line in prompts.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines:
        raise EI2Error("prompts is empty: write one edit a line, such as: shape: a red star on a blue background")
    edits = list(dict.fromkeys(_of_line(line, kind, cfg, strength, seed) for line in lines))
    if sweep == NOTHING:
        return edits
    found = _values(values, sweep)
    return [replace(SWEEPS[sweep](edit, v), value=f"{sweep} {v:g}") for edit in edits for v in found]


def _of_line(line: str, kind: str, cfg: float, strength: float, seed: int) -> Edit:
    """ "kind: prompt", or the prompt alone."""
    before, colon, after = line.partition(":")
    if colon and before.strip() in KIND_CHOICES:
        kind, line = before.strip(), after.strip()
    if not line:
        raise EI2Error(f"There is no prompt after {kind}: in prompts.")
    options = None if kind == FREE else ControlOptions.of_kind(kind)
    return Edit(line, kind, cfg, strength, seed, options)


def _values(values: str, sweep: str) -> list[float]:
    try:
        found = [float(value) for value in values.replace(",", " ").split()]
    except ValueError:
        found = []
    whole = sweep != "seed" or all(value == int(value) >= 0 for value in found)
    if not found or not whole:
        raise EI2Error(f"values is {values!r}: write the numbers that {sweep} shall take, such as {EXAMPLES[sweep]}.")
    return list(dict.fromkeys(found))


EXAMPLES = {
    "cfg": "3, 5, 7.5", "strength": "0.6, 0.8, 1", "seed": "0, 1, 2", "cross_share": "0.2, 0.5, 0.8",
    "self_share": "0, 0.3, 0.6", "blend_threshold": "0.3, 0.4, 0.5",
}  # fmt: skip
