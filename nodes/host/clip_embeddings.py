"""CLIP embeddings out of the host's CLIP_VISION and CLIP objects, in the space where the two can be compared.

The text side needs care. The host hands out the pooled text before the projection for SD 1.x encoders, whatever was
loaded, and SD 1.x checkpoints leave the projection out: the host then keeps whatever was in the memory (0.3.75),
zeros, or the identity. None of these gives a text alignment, so they are recognised and refused with words.
"""

import torch

from ...ei2_modules.errors import EI2Error

FRAMES_AT_ONCE = 8  # bounds the memory of a long clip
TEXT_ENCODERS = ("clip_l", "clip_g", "clip_h")
WHICH_CLIP = (
    "Load the full text encoder of clip-vit-large-patch14 with the Load CLIP node (type stable_diffusion) and the "
    "CLIP vision model of the same name, and connect these two."
)


@torch.no_grad()
def embed_frames(clip_vision, frames: torch.Tensor) -> torch.Tensor:
    """(n, h, w, 3) in 0..1 to (n, d) projected image embeddings. The shorter side is fitted and the middle cropped."""
    parts = [clip_vision.encode_image(part, crop=True)["image_embeds"] for part in frames.split(FRAMES_AT_ONCE)]
    return torch.cat(parts).float()


@torch.no_grad()
def embed_text(clip, prompt: str) -> torch.Tensor:
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
    return projection(pooled.float())[0].float()


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
