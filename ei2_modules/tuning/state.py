"""The file that a stopped tuning goes on from: everything in `Tuning.state`, and what it belongs to.

About three times the size of the tuned weights: the masters and the optimiser's two moments, all fp32.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

from ..config import InflateOptions
from ..files.fingerprint import FINGERPRINT_TOLERANCE, distance
from ..files.state_file import StateFile
from .loop import Tuning

FILE = StateFile("ei2_state", 1, work="a tuning", again="Tune anew")
_ALIKE = {
    "clip": "the clip",
    "caption": "the caption",
    "start": "the weights it started from",
    "precision": "the precision",
    "model": "the kind of model",
    "widths": "the kind of model",
    "patches": "LoRAs or other patches on the model",
}


@dataclass(frozen=True)
class RunKey:
    """What makes two tunings the same but for the number of steps. Plain JSON."""

    clip: str  # a hash of the contents, as are the next three; None for what cannot be compared
    caption: str | None
    start: str
    patches: str | None  # LoRAs and other changes to the model
    precision: str
    model: list  # family and prediction
    widths: list  # see weights.Header
    fingerprint: list
    inflation: dict  # InflateOptions
    tuning: dict  # TuningOptions but for the steps

    def differences(self, other: "RunKey") -> list[str]:
        """In words, what keeps this tuning from going on from the other's state, as far as can be seen."""
        pairs = [(words, getattr(self, name), getattr(other, name)) for name, words in _ALIKE.items()]
        found = [words for words, ours, theirs in pairs if ours != theirs and None not in (ours, theirs)]
        if not distance(self.fingerprint, other.fingerprint) <= FINGERPRINT_TOLERANCE:
            found.append("the checkpoint")
        inflation = asdict(InflateOptions()) | other.inflation  # an older version's has fewer options
        for ours, theirs in ((self.inflation, inflation), (self.tuning, other.tuning)):
            unlike = (name for name in ours if ours[name] != theirs.get(name))
            found += [f"{name.replace('_', ' ')} ({theirs.get(name)} there, {ours[name]} here)" for name in unlike]
        return list(dict.fromkeys(found))

    def comparable(self, other: "RunKey") -> bool:
        """Whether all can be seen: if not, only the user can say that two tunings are the same."""
        return None not in (self.caption, other.caption, self.patches, other.patches)


def save(path: Path, tuning: Tuning, key: RunKey, seconds: float) -> None:
    """Write whole or not at all. seconds: what the tuning took so far."""
    tensors, plain = tuning.state()
    FILE.save(path, tensors, {"key": asdict(key), "seconds": seconds, "state": plain})


def read(path: Path) -> tuple[RunKey, int]:
    """Whose state it is, and after how many steps, without reading the tensors. Raises WeightsError."""
    return _whose(path, FILE.read(path))


def restore(path: Path, tuning: Tuning) -> float:
    """Go on from a file; gives the seconds before. Raises WeightsError for one that is damaged or of another kind."""
    tensors, header = FILE.load(path)
    _whose(path, header)
    with FILE.refused_when_damaged(path):
        tuning.restore(tensors, header["state"])
        return float(header["seconds"])


def _whose(path: Path, header: dict) -> tuple[RunKey, int]:
    with FILE.refused_when_damaged(path):
        key = RunKey(**header["key"])
        key.differences(key)
        return key, len([float(loss) for loss in header["state"]["losses"]])
