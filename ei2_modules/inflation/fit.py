"""Whether tuned weights fit a model: by its kind, its widths and the fingerprint of its checkpoint."""

from collections.abc import Callable

from ..config import InflateOptions
from ..errors import WeightsError
from ..files.fingerprint import Fingerprint, distance, spread
from .unet_spec import UNetSpec
from .weights import Header

SURE = 4  # standard deviations of what is left


def check_fits(
    header: Header,
    spec: UNetSpec,
    options: InflateOptions | None,
    found: Fingerprint,
    allow_mismatch: bool = False,
    without_ours: Callable[[], list[float]] | None = None,
) -> list[str]:
    """Raise WeightsError, naming both sides, unless the weights were tuned for this model and these options.

    found: of this model. allow_mismatch: another checkpoint is no error, if the shapes are the same.
    without_ours: numbers of the model's queries after these weights' differences are taken off them.
    Returns sentences to warn of.
    """
    notes = warned(_other_family(header, spec), allow_mismatch)
    if header.widths != spec.widths():
        raise WeightsError(
            f"These weights fit a UNet of {_widths(header.widths)}; this model has {_widths(spec.widths())}. "
            "Load the checkpoint they were tuned on."
        )
    notes += warned(_other_checkpoint(header, spec, found, without_ours), allow_mismatch)
    notes += warned(_other_norms(header, options), allow_mismatch)
    for name in ("attention", "temporal") if options is not None else ():
        if getattr(options, name) != header.options[name]:
            raise WeightsError(
                f"These weights were tuned with {name} {header.options[name]!r}, but the node asks for "
                f"{getattr(options, name)!r}. Choose the mode they were tuned with."
            )
    if found.stored and not notes:
        notes.append(
            f"This model is stored as {found.stored}: as far as that lets it be told, these weights were tuned on the "
            f"same checkpoint (distance {distance(header.fingerprint, found.numbers):.3f}, allowed "
            f"{found.allowed():.3f}). The edit may differ from the one of the unquantised checkpoint."
        )
    return notes


def warned(fault: str | None, allowed: bool) -> list[str]:
    """A fault as what is to be said in the log when it is allowed; raises WeightsError when not."""
    if fault and not allowed:
        raise WeightsError(f"{fault} Or set allow_mismatch on Inflate UNet to EI² to try it all the same.")
    return [fault] if fault else []


def _other_family(header: Header, spec: UNetSpec) -> str | None:
    if (header.family, header.prediction) == (spec.family, spec.prediction):
        return None
    return (
        f"These weights were tuned on a {header.family} model with {header.prediction}-prediction; this model is "
        f"{spec.family} with {spec.prediction}-prediction. Load the checkpoint they were tuned on."
    )


def _other_norms(header: Header, options: InflateOptions | None) -> str | None:
    tuned = InflateOptions(**header.options).group_norm
    if options is None or options.group_norm == tuned:
        return None
    return (
        f"These weights were tuned with group norm {tuned!r}, but the node asks for {options.group_norm!r}: the UNet "
        f"computes something else. Set group_norm of Inflate UNet to EI² to {tuned!r}."
    )


def _other_checkpoint(
    header: Header, spec: UNetSpec, found: Fingerprint, without_ours: Callable[[], list[float]] | None
) -> str | None:
    far, allowed, keys = distance(header.fingerprint, found.numbers), found.allowed(), len(spec.key_paths())
    far_keys = distance(header.fingerprint[:keys], found.numbers[:keys])
    coarse = f" for a model stored as {found.stored}" if found.stored else ""
    if not far_keys <= allowed or not far < float("inf"):  # also when it is not a number
        return (
            f"These weights were tuned on another {spec.family} checkpoint: its fingerprint begins "
            f"{_short(header.fingerprint)}, this model's {_short(found.numbers)} (distance {far:.3f}, allowed "
            f"{allowed:.3g}{coarse}). Load the checkpoint they were tuned on, or tune again on this one."
        )
    if _are_in(header.fingerprint[keys:], found.numbers[keys:], without_ours, allowed):
        return (
            f"The queries of these very weights are in this checkpoint already (distance {far:.4f}, and less when they "
            "are taken off): ModelSave or Save Checkpoint of a tuned model writes them into it, and leaves its "
            "temporal modules out. Load the checkpoint they were tuned on and give it these weights."
        )
    if far <= allowed:
        return None
    return (
        f"These weights were tuned on this {spec.family} checkpoint with other queries: the keys are the same "
        f"(distance {far_keys:.3f}), the queries are not (distance {far:.3f}, allowed {allowed:.3g}{coarse}). Another "
        "tuned model or a LoRA was saved into it. Load the checkpoint they were tuned on, or tune again on this one."
    )


def _are_in(
    tuned_on: list[float], here: list[float], without_ours: Callable[[], list[float]] | None, allowed: float
) -> bool:
    """Whether the model's queries are those that were tuned on with the tuned differences added to them.

    How far they are from those goes then all the way that our differences lead, and what is left of it is rounding:
    so it is seen of a quantised model too. A file of format 1 or 2 does not say what was tuned on.
    """
    if not tuned_on or without_ours is None:
        return False
    without = without_ours()
    way = [x - y for x, y in zip(here, without, strict=True)]
    length = sum(x * x for x in way) ** 0.5
    left = spread(tuned_on, without)
    if length == 0 or left > allowed:
        return False
    gone = sum((x - y) * w for x, y, w in zip(here, tuned_on, way, strict=True)) / length
    return gone > length / 2 and gone > SURE * left


def _widths(widths: list) -> str:
    return f"{len(widths)} blocks {'/'.join(str(d) for d in dict.fromkeys(w[1] for w in widths))} wide"


def _short(numbers: list) -> str:
    return " ".join(f"{v:+.2f}" for v in numbers[:3])
