"""How consistent an edited clip is, how well it fits its prompt, and how much of the source it keeps.

The first two figures are those of the paper's table 1. A frozen still scores 100 in frame consistency, so motion, the
warp error and the source clip's own figures always stand beside it. Embeddings come in ready-made; this file knows
no CLIP. Clips are (n, h, w, 3) in 0..1, as ComfyUI passes them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from .errors import EI2Error
from .optical_flow import estimate_flow, followed, warp

WORKING_SIDE = 256  # px: motion and flow are measured at this longest side, for speed and comparable figures
PAIRS_AT_ONCE = 8  # frame pairs per flow call; bounds the memory of a long clip
HARDLY_MOVES = 0.25  # of the source's motion; below it the report warns about frame consistency
LOW_ALIGNMENT = 5.0  # a matching image and text encoder rarely go below 10, even for a wrong caption


# ---- figures, one value per frame or per pair of frames ----


def frame_consistency(embeds: Tensor) -> tuple[float, float]:
    """Mean cosine x 100 over all pairs i < j, and over neighbouring frames only.

    embeds: (n, d), one CLIP image embedding per frame. Both are nan for n = 1. All pairs is the measure of
    Tune-A-Video and EI² (table 1), neighbours that of FateZero.
    """
    return mean_finite(consistency_per_frame(embeds)), mean_finite(neighbour_consistency(embeds))


def consistency_per_frame(embeds: Tensor) -> Tensor:
    """(n,) mean cosine x 100 of each frame with all others; its mean is the mean over all pairs. nan for n = 1."""
    unit = F.normalize(embeds.double(), dim=-1)
    cosines = unit @ unit.T
    others = cosines.sum(dim=1) - cosines.diagonal()
    return 100 * others / (len(embeds) - 1)


def neighbour_consistency(embeds: Tensor) -> Tensor:
    """(n - 1,) cosine x 100 of each frame with the one before it."""
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


# ---- what fits together ----


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
        f"source has {_clip_size(source)}, images {_clip_size(images)}: they are compared pixel by pixel, so "
        f"{' and '.join(fixes)}. Or leave source unconnected."
    )


def shrink(clip: Tensor, side: int = WORKING_SIDE) -> Tensor:
    """(n, h, w, 3) to (n, 3, h', w') float32, the longest side at most `side` pixels. Never enlarges."""
    frames = rearrange(clip[..., :3].float(), "n h w c -> n c h w")
    scale = side / max(frames.shape[-2:])
    if scale >= 1:
        return frames
    size = [max(1, round(length * scale)) for length in frames.shape[-2:]]
    return F.interpolate(frames, size=size, mode="bilinear", antialias=True)


def _clip_size(clip: Tensor) -> str:
    n, h, w = clip.shape[:3]
    return f"{n} frame{'s' if n != 1 else ''} at {w}x{h}"


# ---- everything at once ----


@dataclass(frozen=True)
class Score:
    """One figure of the report and one column of the table (two where the source has its own)."""

    key: str
    title: str
    words: str
    values: Tensor  # per frame, or per frame from the second on
    source: Tensor | None = None


def measure(
    images: Tensor,
    source: Tensor | None = None,
    embeds: Tensor | None = None,
    source_embeds: Tensor | None = None,
    text: Tensor | None = None,
    notes: tuple[str, ...] = (),
) -> tuple[str, str, dict[str, float]]:
    """All figures that the given inputs allow.

    images, source: (n, h, w, 3). embeds, source_embeds: (n, d) CLIP image embeddings of either. text: (d,), the
    prompt's. notes: sentences to add to the report. Returns the report, the per-frame table (tab-separated, one
    header line) and the means as a dict of finite floats. Raises EI2Error where clips or embeddings do not fit.
    """
    if source is not None:
        check_pair(images, source)
    scores = _clip_scores(embeds, source_embeds, text) + _pixel_scores(images, source)
    means = {key: mean_finite(values) for key, values in _columns(scores)}
    figures = {"frames": float(len(images)), **{key: mean for key, mean in means.items() if math.isfinite(mean)}}
    lines = [f"EI² Video Metrics of {_clip_size(images)}", *map(_line, scores)]
    lines += [f"Note: {note}" for note in (*notes, *_warnings(scores, figures, embeds is None))]
    return "\n".join(lines), _table(scores, len(images)), figures


def _clip_scores(embeds: Tensor | None, source: Tensor | None, text: Tensor | None) -> list[Score]:
    if embeds is None:
        return []
    tables = [
        (
            "frame_consistency",
            "Frame consistency, all pairs",
            "Mean cosine of CLIP image embeddings x 100, higher is "
            "steadier. A frozen still scores 100: read it together with motion.",
            consistency_per_frame,
        ),
        ("neighbour_consistency", "Frame consistency, neighbours", "Neighbouring frames only.", neighbour_consistency),
    ]
    if text is not None:
        tables.append(
            (
                "text_alignment",
                "Text alignment",
                "Mean cosine of the frames with the prompt x 100, higher "
                "fits better. The source's figure is for the same prompt.",
                lambda e: text_alignment(e, text),
            )
        )
    return [Score(*head, figure(embeds), None if source is None else figure(source)) for *head, figure in tables]


def _pixel_scores(images: Tensor, source: Tensor | None) -> list[Score]:
    frames, origin = shrink(images), None if source is None else shrink(source).to(images.device)
    flow, mask = follow(frames if origin is None else origin)
    size, share = f"{frames.shape[3]}x{frames.shape[2]}", 100 * mask.double().mean(dim=(1, 2, 3))
    guide = "this clip's own motion" if origin is None else "the source's motion"
    scores = [
        Score(
            "motion",
            "Motion",
            f"Mean change to the previous frame at {size}, 0 to 255. A frozen still scores 0.",
            motion(frames),
            None if origin is None else motion(origin),
        ),
        Score(
            "warp_error",
            "Warp error",
            f"What is left of that change once {guide} is undone, lower flickers less.",
            warp_error(frames, flow, mask),
            None if origin is None else warp_error(origin, flow, mask),
        ),
        Score("followed_percent", "Followed pixels", "Percent of the picture the warp error is measured on.", share),
    ]
    if source is not None:
        scores.append(
            Score("psnr", "PSNR to the source", "dB, higher keeps more of it.", psnr(images[..., :3], source[..., :3]))
        )
    return scores


def _line(score: Score) -> str:
    source = "" if score.source is None else f" (source {_number(mean_finite(score.source))})"
    return f"{score.title}: {_number(mean_finite(score.values))}{source}. {score.words}"


def _number(value: float) -> str:
    return "not measurable" if math.isnan(value) else f"{value:.2f}"


def _warnings(scores: list[Score], figures: dict[str, float], blind: bool) -> list[str]:
    """What a reader of the figures should know, in the user's words."""
    psnr_values = next((score.values for score in scores if score.key == "psnr"), torch.zeros(0))
    equal, moved = int(psnr_values.isinf().sum()), figures.get("motion", math.nan)
    checks = [
        (
            blind,
            "frame consistency and text alignment need a CLIP vision model: connect one to clip_vision, "
            "for example that of clip-vit-large-patch14.",
        ),
        (figures["frames"] == 1, "frame consistency, motion and warp error need at least two frames."),
        (equal > 0, f"{equal} of {len(psnr_values)} frames equal the source; the mean PSNR leaves them out."),
        (
            moved == 0 or moved < HARDLY_MOVES * figures.get("source_motion", 0),
            "the clip hardly moves, so its frame consistency says little.",
        ),
        (
            figures.get("followed_percent", 100) < 50,
            "the motion could be followed on less than half of the picture, "
            "so the warp error covers only the easy part.",
        ),
        (
            figures.get("text_alignment", math.inf) < LOW_ALIGNMENT,
            "the text alignment is lower than even a wrong "
            "caption gets. Check that clip and clip_vision are the two halves of one CLIP.",
        ),
    ]
    return [words for applies, words in checks if applies]


def _columns(scores: list[Score]) -> list[tuple[str, Tensor]]:
    pairs = (pair for s in scores for pair in ((s.key, s.values), ("source_" + s.key, s.source)))
    return [(key, values) for key, values in pairs if values is not None]


def _table(scores: list[Score], n: int) -> str:
    columns = _columns(scores)
    rows = ["\t".join(["frame", *(name for name, _ in columns)])]
    for i in range(n):
        cells = (values[i - n].item() if i >= n - len(values) else math.nan for _, values in columns)
        rows.append("\t".join([str(i), *("" if math.isnan(cell) else f"{cell:.3f}" for cell in cells)]))
    return "\n".join(rows)
