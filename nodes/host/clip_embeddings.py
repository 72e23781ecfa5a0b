"""CLIP embeddings out of the host's CLIP_VISION and CLIP objects, in the space where the two can be compared.

The text side needs care. The host hands out the pooled text before the projection for SD 1.x encoders, whatever was
loaded, and SD 1.x checkpoints leave the projection out: the host then keeps whatever was in the memory (0.3.75),
zeros, or the identity. None of these gives a text alignment, so they are recognised and refused with words.
"""

from dataclasses import dataclass

import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.metrics.figures import check_image, check_widths, rgb
from .attempt import attempt

FRAMES_AT_ONCE = 8  # bounds the memory of a long clip
TEXT_ENCODERS = ("clip_l", "clip_g", "clip_h")
WHICH_CLIP = (
    "Load the full text encoder of clip-vit-large-patch14 with the Load CLIP node (type stable_diffusion) and the "
    "CLIP vision model of the same name, and connect these two."
)


@dataclass(frozen=True)
class Embeddings:
    """What there is of them, on the CPU. images, source: (n, d). text: (d,)."""

    images: torch.Tensor | None = None
    source: torch.Tensor | None = None
    text: torch.Tensor | None = None


def embeddings(
    images: torch.Tensor,
    source: torch.Tensor | None,
    clip_vision: ClipVisionModel | None,
    clip: CLIP | None,
    prompt: str,
) -> tuple[Embeddings, tuple[str, ...]]:
    """All that the given inputs allow, and in words why others are missing. Raises the host's interrupt alone."""
    if clip_vision is None:
        return Embeddings(), (
            "frame consistency and text alignment need a CLIP vision model: connect one to clip_vision, for example "
            "that of clip-vit-large-patch14.",
        )
    failed = "Frame consistency could not be measured"
    ours, fault = attempt(failed, embed_frames, clip_vision, images)
    if ours is None:
        return Embeddings(), (fault,)
    theirs, no_source = attempt(f"{failed} of the source", _of_source, clip_vision, source)
    text, no_text = attempt("Text alignment could not be measured", _of_text, clip, prompt, ours.shape[-1])
    return Embeddings(ours, theirs, text), tuple(filter(None, (no_source, no_text)))


def _of_source(clip_vision, source) -> torch.Tensor | None:
    if source is None:
        return None
    check_image(source, "source")
    return embed_frames(clip_vision, source)


def _of_text(clip, prompt, width: int) -> torch.Tensor | None:
    """Raises EI2Error unless the text can be compared with images embedded so wide."""
    if not (isinstance(prompt, str) and prompt.strip()):
        return None
    if clip is None:
        raise EI2Error("text alignment needs a CLIP beside the prompt: connect one to clip.")
    text = embed_text(clip, prompt)
    check_widths(width, text.shape[-1])
    return text


@torch.no_grad()
def embed_frames(clip_vision: ClipVisionModel, frames: torch.Tensor) -> torch.Tensor:
    """(n, h, w, c) in 0..1 to (n, d) projected image embeddings. The shorter side is fitted and the middle cropped.

    Raises EI2Error for a model that gives none.
    """
    found = []
    for part in rgb(frames).split(FRAMES_AT_ONCE):
        embeds = clip_vision.encode_image(part, crop=True)["image_embeds"]
        if embeds is None or embeds.ndim != 2:
            shape = "none" if embeds is None else f"of shape {tuple(embeds.shape)}"
            raise EI2Error(
                f"Frame consistency cannot be measured: clip_vision gives image embeddings {shape}, and one vector a "
                "frame is needed. Load a CLIP vision model such as that of clip-vit-large-patch14."
            )
        found.append(embeds.float().cpu())
    return torch.cat(found)


@torch.no_grad()
def embed_text(clip: CLIP, prompt: str) -> torch.Tensor:
    """The projected embedding (d,) of a prompt. Word weights such as (red:1.2) do not change it.

    Raises EI2Error, naming a CLIP that works, if this one has no usable text projection.
    """
    pooled = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled="unprojected")[1]
    if pooled is None:
        raise EI2Error(f"Text alignment cannot be measured: this CLIP gives no pooled text embedding. {WHICH_CLIP}")
    projection = _text_projection(clip.cond_stage_model, pooled.shape[-1])
    if projection is None or not is_trained(projection.weight):
        raise EI2Error(
            "Text alignment cannot be measured: this CLIP comes without its text projection, as the one inside an "
            f"SD 1.x checkpoint does. {WHICH_CLIP}"
        )
    return projection(pooled.float())[0].float().cpu()


def is_trained(weight: torch.Tensor) -> bool:
    """False for a projection that was never loaded: identity, zeros, or what happened to be in the memory."""
    weight = weight.detach().float()
    if not weight.isfinite().all():
        return False
    rows = weight.norm(dim=1)
    even = rows.min() > 1e-3 * rows.median() > 0 and rows.max() < 1e3 * rows.median()
    return bool(even) and not torch.equal(weight, torch.eye(*weight.shape, device=weight.device))


def _text_projection(model, width: int):
    """The projection of the encoder that made a pooled text of this width (SDXL has two, one of them pools)."""
    encoders = (getattr(model, name, None) for name in TEXT_ENCODERS)
    projections = (getattr(getattr(encoder, "transformer", None), "text_projection", None) for encoder in encoders)
    return next((p for p in projections if p is not None and p.weight.shape[1] == width), None)
