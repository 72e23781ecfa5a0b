"""What a null-text inversion is asked for, and what cannot be: said before any work."""

from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher

from ....ei2_modules.diffusion.null_text import NullTextOptions
from ....ei2_modules.errors import EI2Error
from .. import conditioning
from ..inflating import animatediff
from ..inflating.guidance import without_guidance
from ..inflating.inflate import Inflated, inflated_of
from ..sampling.inverted import Inverted, read_inverted
from ..sampling.record import RECORD, Inversion, checksums

NODE = "Null-Text Inversion"


@dataclass(frozen=True)
class NullTextJob:
    """The model is not changed. Made by `make_job`."""

    model: ModelPatcher
    inflated: Inflated
    start: Inverted
    positive: list  # CONDITIONING of the caption
    negative: list  # of the text to begin with
    cfg: float
    options: NullTextOptions
    decoupled: bool = True
    last_half: bool = False

    @property
    def inversion(self) -> Inversion:
        return self.start.latent[RECORD]

    @property
    def numbers(self) -> int:
        """That one step fits."""
        return self.negative[0][0].numel() * (len(self.start.samples) if self.options.per_frame else 1)


def make_job(
    model: ModelPatcher, latent: dict, positive: list, negative: list, cfg: float, options: NullTextOptions, **choices
) -> NullTextJob:
    """Raises EI2Error for what does not fit together."""
    inflated = inflated_of(model, NODE)
    fault = cfg_fault(cfg)
    if fault:
        raise EI2Error(fault)
    _refuse_motion(model)
    for name, text in (("positive", positive), ("negative", negative)):
        conditioning.check(text, name, inflated.spec)
        _check_plain(text, name)
    _check_negative(negative)
    model = without_guidance(model, "null-text inversion")
    return NullTextJob(
        model, inflated, _unchanged(model, inflated, latent), positive, negative, cfg, options, **choices
    )


def cfg_fault(cfg: float) -> str | None:
    """Why it makes no sense, or None."""
    if cfg > 1:
        return None
    return (
        f"cfg is {cfg:g}: without guidance the clip comes back by itself, and an empty text has no effect. Set it to "
        "the cfg of the edit, 7.5 say; at 1 leave Null-Text Inversion out."
    )


def _unchanged(model: ModelPatcher, inflated: Inflated, latent: dict) -> Inverted:
    """The latent, as DDIM Invert Video has made it."""
    if latent.get(RECORD) is None:
        raise EI2Error(
            f"{NODE} needs the latents that the inversion went through at every step, and this latent carries none: it "
            "was never inverted, or lost its record on the way (Save Latent drops it). Wire the latent of DDIM Invert "
            "Video here."
        )
    start = read_inverted(model, inflated, latent, steps=0, allow_mismatch=False)
    found, recorded = checksums(start.samples), latent[RECORD].checksums
    if found != recorded:
        same = sum(a == b for a, b in zip(found, recorded, strict=False))
        raise EI2Error(
            f"Only {same} of the {len(found)} frames of the latent are as they were inverted, of {len(recorded)} in "
            f"all. {NODE} leads back to the clip that was inverted: change, cut or join it before DDIM Invert Video."
        )
    return start


def _refuse_motion(model: ModelPatcher) -> None:
    if animatediff.has_motion(model) or animatediff.context_length(model):
        raise EI2Error(
            f"The model carries AnimateDiff's motion model or Context Options, which {NODE} does not go through. Take "
            "the nodes of AnimateDiff off the model."
        )


def _check_plain(text: list, name: str) -> None:
    for i, (_, options) in enumerate(text, 1):
        limits = [what for what, limited in conditioning.LIMITS.items() if limited(options)]
        if limits:
            raise EI2Error(
                f"The {name} conditioning carries {' and '.join(limits)} (entry {i} of {len(text)}), which {NODE} does "
                "not fit. Wire the plain CLIP Text Encode here."
            )


def _check_negative(text: list) -> None:
    rows = len(text[0][0])
    if len(text) > 1 or rows > 1:
        raise EI2Error(
            f"The negative conditioning has {len(text)} entries and {rows} embeddings in the first, but {NODE} begins "
            "with one text for all frames. Wire one CLIP Text Encode here, with empty text as a rule; frames 'one "
            "each' then gives every frame its own."
        )
