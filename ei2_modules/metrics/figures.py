"""How consistent an edited clip is, how well it fits its prompt, and how much of the source it keeps.

One function a figure, one value per frame or per pair of frames; report.py puts them together. Embeddings come in
ready-made; this file knows no CLIP. Clips are (n, h, w, 3) in 0..1, as ComfyUI passes them.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..errors import EI2Error
from ..motion.optical_flow import estimate_flow, followed, warp

WORKING_SIDE = 256  # px: motion and flow are measured at this longest side, for speed and comparable figures
VAE_FACTORS = (4, 8, 16, 32)  # pixels a latent, of the VAEs there are
PAIRS_AT_ONCE = 8  # frame pairs per flow call; bounds the memory of a long clip


def consistency_per_frame(embeds: Tensor) -> Tensor:
    """(n,) mean cosine x 100 of each frame's CLIP embedding (n, d) with all others that are finite; nan for n = 1.

    Its mean is the mean over all pairs, the frame consistency of Tune-A-Video and EI² (table 1).
    """
    unit = F.normalize(embeds.double(), dim=-1)
    cosines = unit @ unit.T
    others = cosines.isfinite().fill_diagonal_(False)
    return 100 * torch.where(others, cosines, 0.0).sum(dim=1) / others.sum(dim=1)


def neighbour_consistency(embeds: Tensor) -> Tensor:
    """(n - 1,) cosine x 100 of each frame with the one before it, FateZero's measure."""
    unit = F.normalize(embeds.double(), dim=-1)
    return 100 * (unit[1:] * unit[:-1]).sum(dim=-1)


def text_alignment(embeds: Tensor, text: Tensor) -> Tensor:
    """(n,) 100 x cosine between each frame's embedding (n, d) and the prompt's (d,).

    This is CLIP's own logit, as in the paper's table 1, not the 2.5 x max(cosine, 0) of Hessel et al. 2021.
    Raises EI2Error if the widths differ.
    """
    check_widths(embeds.shape[-1], text.shape[-1])
    return 100 * F.cosine_similarity(embeds.double(), text.double().reshape(1, -1), dim=-1)


def psnr(images: Tensor, source: Tensor, peak: float = 1.0) -> Tensor:
    """(n,) peak signal-to-noise ratio per frame in dB for data in 0..peak; inf where both frames are equal.

    images, source: frames first, of equal shape: (n, h, w, 3), or latents. Raises EI2Error if sizes differ.
    """
    check_pair(images, source)
    # frame by frame: a long clip in double would not fit
    pairs = zip(images, source, strict=True)
    error = torch.stack([(a.double() - b.to(a.device).double()).square().mean() for a, b in pairs])
    return 10 * torch.log10(peak**2 / error)


def motion(frames: Tensor) -> Tensor:
    """(n - 1,) mean absolute difference to the previous frame, on the 0 to 255 scale. Any layout, frames first."""
    return 255 * (frames[1:] - frames[:-1]).abs().flatten(1).mean(dim=1)


def follow(guide: Tensor) -> tuple[Tensor, Tensor]:
    """The motion of a clip, from each frame back to the one before it.

    guide: (n, 3, h, w) in 0..1. Returns flow (n - 1, 2, h, w) in pixels and the pixels where it can be trusted,
    (n - 1, 1, h, w) bool; see `optical_flow`.
    """
    flows = [guide.new_zeros(0, 2, *guide.shape[2:])]
    masks = [guide.new_zeros(0, 1, *guide.shape[2:], dtype=torch.bool)]
    for start in range(0, len(guide) - 1, PAIRS_AT_ONCE):
        frames = guide[start : start + PAIRS_AT_ONCE + 1]
        flow = estimate_flow(frames[1:], frames[:-1])
        flows.append(flow)
        masks.append(followed(flow, estimate_flow(frames[:-1], frames[1:])))
    return torch.cat(flows), torch.cat(masks)


def warp_error(frames: Tensor, flow: Tensor, mask: Tensor) -> Tensor:
    """(n - 1,) what is left of the change between neighbours once the motion is undone, on the 0 to 255 scale.

    The previous frame is warped along `flow` (n - 1, 2, h, w) and its mean absolute difference to the current one
    taken over `mask` (n - 1, 1, h, w); nan where the mask is empty. frames: (n, 3, h, w) in 0..1. After Lai et al.,
    ECCV 2018, with the mean absolute instead of the mean squared error, so that it compares with `motion`.
    """
    error = (frames[1:] - warp(frames[:-1], flow)).abs().mean(dim=1, keepdim=True)
    return 255 * (error * mask).sum(dim=(1, 2, 3)) / mask.sum(dim=(1, 2, 3))


def mean_finite(values: Tensor) -> float:
    """The mean of the values that are numbers; nan if none is."""
    return values[values.isfinite()].double().mean().item()


def check_widths(image: int, text: int) -> None:
    """Raise EI2Error unless image and text embeddings are equally wide."""
    if image != text:
        raise EI2Error(
            f"Text alignment cannot be measured: the image embeddings of clip_vision are {image} wide and the text "
            f"embeddings of clip {text}, so they come from different CLIP models. Load both encoders of one CLIP "
            "(clip-vit-large-patch14 has 768)."
        )


def check_pair(images: Tensor, source: Tensor) -> None:
    """Raise EI2Error unless both clips have the same number of frames and the same size."""
    (n, h, w), (m, source_h, source_w) = images.shape[:3], source.shape[:3]
    if (n, h, w) == (m, source_h, source_w):
        return
    fixes = [f"give both the same {min(n, m)} frames"] if m != n else []
    if (source_h, source_w) != (h, w):
        fixes.append(f"resize or crop the source to {w}x{h} the way it was before the edit (Upscale Image node)")
    raise EI2Error(
        f"source has {clip_size(source)}, images {clip_size(images)}: they are compared pixel by pixel, so "
        f"{' and '.join(fixes)}."
    )


def cropped_as_encoded(source: Tensor, images: Tensor) -> Tensor:
    """The source as VAE Encode saw it: cut in the middle to multiples of the VAE's factor, where that gives the size
    of `images`. Otherwise as it is. Both (n, h, w, c)."""
    (height, width), (h, w) = source.shape[1:3], images.shape[1:3]
    if not any((h, w) == (height // f * f, width // f * f) for f in VAE_FACTORS):
        return source
    top, left = (height - h) // 2, (width - w) // 2
    return source[:, top : top + h, left : left + w]


def check_image(clip, name: str) -> None:
    """Raise EI2Error unless a clip is (n, h, w, c)."""
    if isinstance(clip, Tensor) and clip.ndim == 4 and clip.shape[-1] > 0:
        return
    found = f"a tensor of shape {tuple(clip.shape)}" if isinstance(clip, Tensor) else f"a {type(clip).__name__}"
    raise EI2Error(
        f"{name} is no IMAGE: it must be a tensor of (frames, height, width, channels), and this is {found}. Wire the "
        "IMAGE output of VAE Decode or Get Video Components."
    )


def rgb(clip: Tensor) -> Tensor:
    """(n, h, w, c) to (n, h, w, 3): without alpha, grey three times."""
    return clip[..., :3] if clip.shape[-1] >= 3 else clip[..., :1].expand(*clip.shape[:3], 3)


def not_finite(clip: Tensor) -> list[int]:
    """Frames, counted from 0, that hold values that are no finite numbers."""
    return [i for i, frame in enumerate(clip) if not frame.isfinite().all()]


def shrink(clip: Tensor, side: int = WORKING_SIDE) -> Tensor:
    """(n, h, w, 3) to (n, 3, h', w') float32, the longest side at most `side` pixels. Never enlarges."""
    frames = rearrange(rgb(clip).float(), "n h w c -> n c h w")
    scale = side / max(frames.shape[-2:])
    if scale >= 1:
        return frames
    size = [max(1, round(length * scale)) for length in frames.shape[-2:]]
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True)


def clip_size(clip: Tensor) -> str:
    n, h, w = clip.shape[:3]
    return f"{n} frame{'s' if n != 1 else ''} at {w}x{h}"
