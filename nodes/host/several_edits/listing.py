"""The edits that are asked for: one prompt a line, each at every value of what is swept."""

import math
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


@dataclass(frozen=True)
class Sweep:
    """A setting that takes several values."""

    change: Callable[[Edit, float], Edit]
    example: str
    most: float = math.inf  # inf: what the setting itself allows
    number: Callable[[str], float] = float


def _setting(name: str) -> Callable[[Edit, float], Edit]:
    return lambda edit, value: replace(edit, **{name: value})


def _share(name: str) -> Callable[[Edit, float], Edit]:
    def change(edit: Edit, value: float) -> Edit:
        if edit.options is None:
            raise EI2Error(f"{name} is swept, and {edit.prompt!r} is {FREE}, which has none. Choose a kind of edit.")
        return replace(edit, options=replace(edit.options, **{name: value}))

    return change


SWEEPS = {
    "cfg": Sweep(_setting("cfg"), "3, 5, 7.5", most=100),
    "strength": Sweep(_setting("strength"), "0.6, 0.8, 1"),
    "seed": Sweep(_setting("seed"), "0, 1, 2", most=2**64 - 1, number=int),
    "cross_share": Sweep(_share("cross_share"), "0.2, 0.5, 0.8"),
    "self_share": Sweep(_share("self_share"), "0, 0.3, 0.6"),
    "blend_threshold": Sweep(_share("blend_threshold"), "0.3, 0.4, 0.5"),
}
SWEEP_CHOICES = (NOTHING, *SWEEPS)


def listed(prompts: str, kind: str, cfg: float, strength: float, seed: int, sweep: str, values: str) -> list[Edit]:
    """All edits: prompt after prompt, and of each value after value. Raises EI2Error where there is none."""
    lines = [line.strip() for line in prompts.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines:
        raise EI2Error("prompts is empty: write one edit a line, such as: shape: a red star on a blue background")
    edits = list(dict.fromkeys(_of_line(line, kind, cfg, strength, seed) for line in lines))
    if sweep == NOTHING:
        return edits
    found, change = _values(values, sweep), SWEEPS[sweep].change
    return [replace(change(edit, v), value=f"{sweep} {str(v).removesuffix('.0')}") for edit in edits for v in found]


def _of_line(line: str, kind: str, cfg: float, strength: float, seed: int) -> Edit:
    """ "kind: prompt", or the prompt alone."""
    before, colon, after = line.partition(":")
    if colon and before.strip() in KIND_CHOICES:
        kind, line = before.strip(), after.strip()
    if not line:
        raise EI2Error(f"There is no prompt after {kind}: in prompts.")
    options = None if kind == FREE else ControlOptions.of_kind(kind)
    return Edit(line, kind, cfg, strength, seed, options)


def _values(values: str, name: str) -> list[float]:
    sweep = SWEEPS[name]
    try:
        found = [sweep.number(value) for value in values.replace(",", " ").split()]
    except ValueError:
        found = []
    if not found or not all(0 <= value <= sweep.most for value in found):  # NaN is not either
        bound = f"from 0 to {sweep.most:g}" if math.isfinite(sweep.most) else "from 0 on"
        raise EI2Error(
            f"values is {values!r}: write the numbers that {name} shall take, such as {sweep.example}, {bound}."
        )
    return list(dict.fromkeys(found))
