"""All figures of a clip at once: a report in words, a table per frame, and the means.

The first two figures are those of the paper's table 1. A frozen still scores 100 in frame consistency, so motion, the
warp error and the source clip's own figures always stand beside it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import EI2Error
from ..motion.flow import Flow
from .figures import (
    check_image,
    check_pair,
    clip_size,
    consistency_per_frame,
    cropped_as_encoded,
    follow,
    mean_finite,
    motion,
    neighbour_consistency,
    not_finite,
    psnr,
    rgb,
    shrink,
    text_alignment,
    warp_error,
)
from .guide import given_motion

HARDLY_MOVES = 0.25  # of the source's motion; below it the report warns about frame consistency
MOST_NAMED = 8  # frames
LOW_ALIGNMENT = 5.0  # a matching image and text encoder rarely go below 10, even for a wrong caption


@dataclass(frozen=True)
class Score:
    """One figure of the report and one column of the table (two where the source has its own)."""

    key: str
    title: str
    words: str
    values: Tensor  # per frame, or per frame from the second on
    source: Tensor | None = None


@dataclass(frozen=True)
class Source:
    """The clip before the edit. paired: each of its frames belongs to a frame of the edit, pixel by pixel."""

    frames: Tensor  # (n, h, w, c)
    paired: bool


def measure(
    images: Tensor,
    source: Tensor | None = None,
    embeds: Tensor | None = None,
    source_embeds: Tensor | None = None,
    text: Tensor | None = None,
    notes: tuple[str, ...] = (),
    flow: Flow | None = None,
) -> tuple[str, str, dict[str, float]]:
    """All figures that the given inputs allow.

    images, source: (n, h, w, c). embeds, source_embeds: (n, d) CLIP image embeddings of either. text: (d,), the
    prompt's. notes: sentences to add to the report. flow: what guides the warp error. Returns the report, the
    per-frame table (tab-separated, one header line) and the means as a dict of finite floats. A figure that cannot be
    given is left out and the report says why. Raises EI2Error for images that are no IMAGE, and for nothing else.
    """
    check_image(images, "images")
    said = list(notes)
    said += _broken("images", images)
    origin = _source(images, source, said)
    scores = _attempt(said, "Frame consistency", lambda: _consistency(embeds, source_embeds))
    scores += _attempt(said, "Text alignment", lambda: _alignment(embeds, source_embeds, text))
    scores += _attempt(said, "Motion", lambda: _motion(images, origin, flow, said))
    scores += _attempt(said, "PSNR to the source", lambda: _psnr(images, origin))
    means = {key: mean_finite(values) for key, values in _columns(scores)}
    figures = {"frames": float(len(images)), **{key: mean for key, mean in means.items() if math.isfinite(mean)}}
    lines = [f"EI² Video Metrics of {clip_size(images)}", *map(_line, scores)]
    lines += [f"Note: {note}" for note in (*said, *_warnings(scores, figures))]
    return "\n".join(lines), _table(scores, len(images)), figures


def _source(images: Tensor, source: Tensor | None, notes: list[str]) -> Source | None:
    """In the size it is compared in. notes: are told what was done to it, or why it is not compared."""
    if source is None:
        return None
    try:
        check_image(source, "source")
    except EI2Error as error:
        notes.append(f"the source's figures are left out. {error}")
        return None
    if source.numel() == 0:
        notes.append(f"the source's figures are left out: it has {clip_size(source)}.")
        return None
    notes += _broken("source", source)
    cut = cropped_as_encoded(source, images)
    try:
        check_pair(images, cut)
    except EI2Error as error:
        notes.append(f"PSNR, and the source as the guide of the warp error, are left out: {error}")
        return Source(source, paired=False)
    if cut.shape != source.shape:
        size = f"{cut.shape[2]}x{cut.shape[1]}"
        notes.append(f"source has {clip_size(source)}: its middle {size}, all that VAE Encode keeps, is compared.")
    return Source(cut, paired=True)


def _broken(name: str, clip: Tensor) -> list[str]:
    """A note, where there is something to note."""
    frames = not_finite(clip)
    if not frames:
        return []
    more = f" and {len(frames) - MOST_NAMED} more" if len(frames) > MOST_NAMED else ""
    which = f"frame{'s' if len(frames) > 1 else ''} {', '.join(map(str, frames[:MOST_NAMED]))}{more}"
    return [
        f"{which} of {name} hold values that are not finite, so their figures are left out (counted from 0, as in the "
        "table). Start ComfyUI with --fp32-vae, or where the latents are to blame already, with --bf16-unet or "
        "--fp32-unet."
    ]


def _attempt(notes: list[str], what: str, figures: Callable[[], list[Score]]) -> list[Score]:
    """The figures, or none and a note: nothing that cannot be measured may stop the graph of a video."""
    try:
        return figures()
    except Exception as error:
        notes.append(f"{what} could not be measured ({type(error).__name__}: {error}).")
        return []


def _consistency(embeds: Tensor | None, source: Tensor | None) -> list[Score]:
    if embeds is None:
        return []
    steady = "Mean cosine of CLIP image embeddings x 100, higher is steadier."
    still = "A frozen still scores 100: read it together with motion."
    pairs = _both(consistency_per_frame, embeds, source)
    neighbours = _both(neighbour_consistency, embeds, source)
    return [
        Score("frame_consistency", "Frame consistency, all pairs", f"{steady} {still}", *pairs),
        Score("neighbour_consistency", "Frame consistency, neighbours", "Neighbouring frames only.", *neighbours),
    ]


def _alignment(embeds: Tensor | None, source: Tensor | None, text: Tensor | None) -> list[Score]:
    if embeds is None or text is None:
        return []
    fits = "Mean cosine of the frames with the prompt x 100, higher fits better."
    words = f"{fits} The source's figure is for the same prompt."
    return [Score("text_alignment", "Text alignment", words, *_both(lambda e: text_alignment(e, text), embeds, source))]


def _both(figure: Callable[[Tensor], Tensor], images: Tensor, source: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return figure(images), None if source is None else figure(source)


def _motion(images: Tensor, source: Source | None, given: Flow | None, notes: list[str]) -> list[Score]:
    frames = shrink(images)
    origin = None if source is None else shrink(source.frames).to(images.device)
    guided = source is not None and source.paired
    wired = _wired(given, images, frames, notes)
    theirs = None if origin is None else wired if wired and guided else follow(origin)
    flow, mask = wired or (theirs if guided else follow(frames))
    size, share = f"{frames.shape[3]}x{frames.shape[2]}", 100 * mask.double().mean(dim=(1, 2, 3))
    guide = "the source's motion" if guided else "this clip's own motion"
    guide = f"the motion by {given.method}" if wired else guide
    still = f"Mean change to the previous frame at {size}, 0 to 255. A frozen still scores 0."
    left = f"What is left of that change once {guide} is undone, lower flickers less."
    errors = warp_error(frames, flow, mask), None if origin is None else warp_error(origin, *theirs)
    return [
        Score("motion", "Motion", still, *_both(motion, frames, origin)),
        Score("warp_error", "Warp error", left, *errors),
        Score("followed_percent", "Followed pixels", "Percent of the picture the warp error is measured on.", share),
    ]


def _wired(flow: Flow | None, images: Tensor, frames: Tensor, notes: list[str]) -> tuple[Tensor, Tensor] | None:
    if flow is None:
        return None
    try:
        return given_motion(flow, images, tuple(frames.shape[-2:]))
    except EI2Error as error:
        notes.append(f"the flow that is wired in is left out: {error}")
        return None


def _psnr(images: Tensor, source: Source | None) -> list[Score]:
    if source is None or not source.paired:
        return []
    values = psnr(rgb(images), rgb(source.frames))
    return [Score("psnr", "PSNR to the source", "dB, higher keeps more of it.", values)]


def _line(score: Score) -> str:
    source = "" if score.source is None else f" (source {_number(mean_finite(score.source))})"
    return f"{score.title}: {_number(mean_finite(score.values))}{source}. {score.words}"


def _number(value: float) -> str:
    return "not measurable" if math.isnan(value) else f"{value:.2f}"


def _warnings(scores: list[Score], figures: dict[str, float]) -> list[str]:
    """What a reader of the figures should know, in the user's words."""
    psnr_values = next((score.values for score in scores if score.key == "psnr"), torch.zeros(0))
    equal, moved = int(psnr_values.isinf().sum()), figures.get("motion", math.nan)
    checks = [
        (figures["frames"] < 2, "frame consistency, motion and warp error need at least two frames."),
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


def _columns(scores: list[Score], a_row_a_frame: bool = False) -> list[tuple[str, Tensor]]:
    """a_row_a_frame: without those of a source of another length."""
    pairs = ((s, pair) for s in scores for pair in ((s.key, s.values), ("source_" + s.key, s.source)))
    found = [(s, key, values) for s, (key, values) in pairs if values is not None]
    return [(key, values) for s, key, values in found if not a_row_a_frame or len(values) == len(s.values)]


def _table(scores: list[Score], n: int) -> str:
    columns = _columns(scores, a_row_a_frame=True)
    rows = ["\t".join(["frame", *(name for name, _ in columns)])]
    for i in range(n):
        cells = (values[i - n].item() if i >= n - len(values) else math.nan for _, values in columns)
        rows.append("\t".join([str(i), *("" if math.isnan(cell) else f"{cell:.3f}" for cell in cells)]))
    return "\n".join(rows)
