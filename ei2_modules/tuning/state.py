"""The file that a stopped tuning goes on from: everything in `Tuning.state`, and what it belongs to.

About three times the size of the tuned weights: the masters and the optimiser's two moments, all fp32.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..config import InflateOptions
from ..errors import WeightsError
from ..files import safetensors_file
from ..files.fingerprint import FINGERPRINT_TOLERANCE, distance
from .loop import Tuning

FORMAT = 1
HEADER = "ei2_state"
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
    header = {"format": FORMAT, "key": asdict(key), "seconds": seconds, "state": plain}
    safetensors_file.save(path, tensors, {HEADER: json.dumps(header)})


def read(path: Path) -> tuple[RunKey, int]:
    """Whose state it is, and after how many steps, without reading the tensors. Raises WeightsError."""
    header = _header(path, safetensors_file.metadata(path))
    return RunKey(**header["key"]), len(header["state"]["losses"])


def restore(path: Path, tuning: Tuning) -> float:
    """Go on from a file; gives the seconds before. Raises WeightsError for one that is damaged or of another kind."""
    tensors, metadata = safetensors_file.load(path)
    header = _header(path, metadata)
    try:
        tuning.restore(tensors, header["state"])
        return float(header["seconds"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise _damaged(path, error) from error


def _header(path: Path, metadata: dict[str, str]) -> dict:
    name = Path(path).name
    if HEADER not in metadata:
        raise WeightsError(f"{name} holds no state of a tuning: it is another kind of file. Choose one from the list.")
    try:
        metadata[safetensors_file.CHECKSUM]  # without one nothing is sure
        header = json.loads(metadata[HEADER])
        if header["format"] != FORMAT:
            raise WeightsError(
                f"{name} is a state of format {header['format']}; this version goes on from {FORMAT}. Tune anew, or "
                "use the version of the pack that wrote it."
            )
        RunKey(**header["key"]).differences(RunKey(**header["key"]))
        [float(loss) for loss in header["state"]["losses"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise error if isinstance(error, WeightsError) else _damaged(path, error) from error
    return header


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{Path(path).name} is damaged and cannot be gone on from ({error}). Delete it and tune anew.")
