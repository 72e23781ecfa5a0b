"""All figures of a clip at once: a report in words, a table per frame, and the means.

The first two figures are those of the paper's table 1. A frozen still scores 100 in frame consistency, so motion, the
warp error and the source clip's own figures always stand beside it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .figures import (
    check_pair,
    clip_size,
    consistency_per_frame,
    follow,
    mean_finite,
    motion,
    neighbour_consistency,
    psnr,
    shrink,
    text_alignment,
    warp_error,
)

HARDLY_MOVES = 0.25  # of the source's motion; below it the report warns about frame consistency
LOW_ALIGNMENT = 5.0  # a matching image and text encoder rarely go below 10, even for a wrong caption


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
    lines = [f"EI² Video Metrics of {clip_size(images)}", *map(_line, scores)]
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
