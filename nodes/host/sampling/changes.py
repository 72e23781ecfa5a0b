"""What was done to an inverted latent since its inversion: that it carries a record proves nothing.

Other nodes hand the record on with what they make of the latent: a sampler's finished clip, a cut, two clips joined.
"""

from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from ....ei2_modules.errors import EI2Error
from .record import Inversion, checksums

ROUNDED = 1e-3  # relative: no more than fp16 takes from a frame is no change
TELLING = 2.0  # only noise that spreads so many times as wide as the clip can be told from it by that
MOST_RUNS = 8  # of frames that a sentence lists


@dataclass(frozen=True)
class Provenance:
    """Of an inverted latent as it is now."""

    frames: list[int | None]  # of the record, one for each frame of the latent; None for one from elsewhere
    told: list[str]  # what was done to it, a sentence each


def provenance(samples: Tensor, scaled: Tensor, inversion: Inversion) -> Provenance:
    """samples: (n, c, h, w), as they are in the LATENT; scaled: in the model's scale.

    Raises EI2Error for other sizes and for frames that are a clip and no noise.
    """
    noise = inversion.trajectory[-1]
    _refuse_other_size(samples, noise)
    frames, told = _recognised(samples, inversion.checksums), []
    strange = [i for i, frame in enumerate(frames) if frame is None]
    if len(frames) == len(noise):  # then each is taken for what was in its place
        change = {i: float((scaled[i] - noise[i]).norm() / noise[i].norm()) for i in strange}
        frames = [i if frame is None else frame for i, frame in enumerate(frames)]
        strange = [i for i in strange if not change[i] <= ROUNDED]
        told += [_changed(strange, max(change[i] for i in strange))] if strange else []
    elif strange:
        told.append(_from_elsewhere(strange, len(noise)))
    _refuse_clean(scaled, strange, inversion)
    kept = [frame for frame in frames if frame is not None]
    if kept and kept != list(range(len(noise))):
        told.append(_cut(kept, len(noise)))
    return Provenance(frames, told)


def numbers(frames: list[int]) -> str:
    """Counted from 1, runs in short: [0, 1, 2, 7] -> "1 to 3, 8"."""
    starts = [0, *(i for i, (a, b) in enumerate(pairwise(frames), 1) if b != a + 1), len(frames)]
    runs = [(frames[a] + 1, frames[b - 1] + 1) for a, b in pairwise(starts)]
    words = [f"{first}" if first == last else f"{first} to {last}" for first, last in runs[:MOST_RUNS]]
    return ", ".join(words + ["..."] * (len(runs) > MOST_RUNS))


def _recognised(samples: Tensor, recorded: list[bytes]) -> list[int | None]:
    place = {checksum: i for i, checksum in enumerate(recorded)}
    found = checksums(samples)
    same = [found[i : i + 1] == recorded[i : i + 1] for i in range(len(found))]  # of two equal frames each its own
    return [i if same[i] else place.get(checksum) for i, checksum in enumerate(found)]


def _refuse_other_size(samples: Tensor, noise: Tensor) -> None:
    now, before = tuple(samples.shape[1:]), tuple(noise.shape[1:])
    if now != before:
        raise EI2Error(
            f"The latent was inverted at {before[2]}x{before[1]} and is {now[2]}x{now[1]} now: resized or cropped "
            "noise leads back to no clip. Resize or crop the clip before DDIM Invert Video."
        )


def _refuse_clean(scaled: Tensor, strange: list[int], inversion: Inversion) -> None:
    """By their spread, where that can tell: a sampler hands the record on with its finished clip."""
    clip, noise = (float(latents.std()) for latents in (inversion.trajectory[0], inversion.trajectory[-1]))
    if noise < TELLING * clip:
        return
    clean = [i for i in strange if float(scaled[i].std()) < (clip * noise) ** 0.5]
    if clean:
        raise EI2Error(
            f"Frames {numbers(clean)} of the latent are no inverted noise: their spread is "
            f"{float(scaled[clean].std()):.2f}, where the clip's was {clip:.2f} and its noise's {noise:.2f}. A "
            "sampler's finished clip still carries its record. Wire the latent of DDIM Invert Video here."
        )


def _changed(frames: list[int], most: float) -> str:
    return (
        f"Frames {numbers(frames)} of the latent have changed since the inversion, by up to {most:.1%}: they do not "
        "come back as they were. Change the clip before DDIM Invert Video instead."
    )


def _from_elsewhere(frames: list[int], recorded: int) -> str:
    return (
        f"Frames {numbers(frames)} of the latent are none of the {recorded} that were inverted: all come back less "
        "exactly, since they see other frames now. Join clips before DDIM Invert Video, or sample them one by one."
    )


def _cut(frames: list[int], recorded: int) -> str:
    return (
        f"The latent holds frames {numbers(frames)} of the {recorded} that were inverted: they come back less exactly, "
        "since they see other frames now. Cut or reorder the clip before DDIM Invert Video."
    )
