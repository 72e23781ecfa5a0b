"""What the last null-text inversion that was stopped has fitted, until it runs again or ComfyUI ends."""

from dataclasses import asdict

from ....ei2_modules.diffusion.null_text import NullText
from ..inflating.unet import sigma_table
from ..precision import computes_in, dtype_name
from ..progress import say
from ..resume.key import content_hash, patches_hash
from .job import NullTextJob

_kept: dict[str, NullText] = {}


def key_of(job: NullTextJob) -> str | None:
    """Equal for the same work. None where other nodes' hooks cannot be compared."""
    inflated, weights = job.inflated, job.inflated.weights
    patches = patches_hash(job.model, inflated)
    if patches is None:
        return None
    tuned = [weights.tensors.queries, weights.tensors.temporal] if weights else None
    return content_hash([
        [checksum.hex() for checksum in job.inversion.checksums], job.positive, job.negative, job.cfg,
        asdict(job.options), inflated.fingerprint.numbers, asdict(inflated.options), tuned, patches,
        dtype_name(computes_in(job.model.model)), sigma_table(job.model),
    ])  # fmt: skip


def take(key: str | None) -> NullText | None:
    """What an earlier run of this key left."""
    found = _kept.pop(key, None)
    if found is not None:
        say(f"Going on at step {len(found.sigmas)}: the null text of the steps before it was kept")
    return found


def keep(key: str | None, done: NullText | None, steps: int) -> None:
    """Of a run that is being stopped, and say so."""
    if done is None or key is None:
        return
    _kept.clear()
    _kept[key] = done
    say(f"Stopped after step {len(done.sigmas)} of {steps}. Run again to go on; it is kept until ComfyUI ends")
