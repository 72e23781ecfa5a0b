"""Two to four clips made equal, and shown as one: side by side, behind a line that wipes over them, or as differences.

A clip here is a list of PIL images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
import torch
from PIL import Image, ImageChops, ImageDraw, ImageOps

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.metrics.figures import check_image, not_finite, rgb
from . import plots
from .side_by_side import TEXT, below, contact_sheet, headings, side_by_side

LEAST_PANEL, WIPE_PANEL = 192, 384  # pixels across: labels need room, two of them above a wipe
MOST_WIDTH, MOST_HEIGHT = 4096, 2304  # of the panels together: what browsers play as H.264
WIPE_SECONDS = 1.5  # from a clip to the next
HOLD = 0.25  # of that time before the line moves, and after
MOST_COLUMNS = 8  # of the contact sheet
SHEET_HEIGHT = 384  # of a row of it, in pixels, for upright clips


@dataclass(frozen=True)
class Panels:
    """Clips of equal length and size, their labels, and what was done to make them so."""

    clips: Sequence[Sequence[Image.Image]]
    labels: Sequence[str]
    notes: Sequence[str] = ()


def equal(clips: dict[str, torch.Tensor], labels: Sequence[str]) -> Panels:
    """Clips (n, h, w, c) by the names of their inputs, as long as the shortest and as large as the first.

    Raises EI2Error for what is no IMAGE, or holds nothing.
    """
    for name, clip in clips.items():
        check_image(clip, name)
        if 0 in clip.shape:
            n, h, w, _ = clip.shape
            raise EI2Error(f"{name} holds nothing to show: {n} frames of {w}x{h}. Give it 1 frame at least.")
    length = min(map(len, clips.values()))
    _, h, w, _ = next(iter(clips.values())).shape
    notes = [note for name, clip in clips.items() for note in _changes(name, clip, length, (w, h))]
    return Panels([_pictures(clip[:length], (w, h)) for clip in clips.values()], list(labels), notes)


def _changes(name: str, clip: torch.Tensor, length: int, size: tuple[int, int]) -> list[str]:
    n, h, w, _ = clip.shape
    notes = [f"{name} has {n} frames; the first {length} are shown, as many as the shortest clip has"] * (n > length)
    if (w, h) != size:
        notes.append(f"{name} is {w}x{h} and is fitted into {size[0]}x{size[1]}, the size of the first clip")
    if bad := not_finite(clip[:length]):
        notes.append(f"{name}: {len(bad)} of {length} frames hold values that are not finite; they are drawn black")
    return notes


def _pictures(clip: torch.Tensor, size: tuple[int, int]) -> list[Image.Image]:
    """Each fitted into a size, nothing cut off and nothing distorted."""
    values = rgb(clip).float().nan_to_num(0, 0, 0).clamp(0, 1).mul(255).round().byte().cpu().numpy()
    found = map(Image.fromarray, values)
    return [p if p.size == size else ImageOps.pad(p, size, Image.Resampling.LANCZOS) for p in found]


def differences(panels: Panels, gain: float) -> Panels:
    """The first clip, and how far each other one is from it in every pixel, times `gain`."""
    (first, *others), (reference, *labels) = panels.clips, panels.labels
    clips, said = [first], [reference]
    for clip, label in zip(others, labels, strict=True):
        raw = [ImageChops.difference(a, b) for a, b in zip(first, clip, strict=True)]
        mean = sum(np.asarray(p).mean() for p in raw) / len(raw)
        clips.append([p.point(lambda value: min(255, round(gain * value))) for p in raw])
        said.append(f"{_heading(label)} - {_heading(reference)}\nmean {mean:.1f} of 255, drawn times {gain:g}")
    return Panels(clips, said, panels.notes)


def _heading(label: str) -> str:
    return label.partition("\n")[0]


def across(panels: Panels) -> list[Image.Image]:
    """All in a row."""
    cell = _cell(panels, len(panels.clips))
    return side_by_side(panels.clips, panels.labels, cell, _text(cell))


def grid(panels: Panels, columns: int) -> list[Image.Image]:
    """In rows of so many."""
    count = len(panels.clips)
    cell = _cell(panels, columns, rows=math.ceil(count / columns))
    rows = [slice(i, i + columns) for i in range(0, count, columns)]
    shown = [side_by_side(panels.clips[row], panels.labels[row], cell, _text(cell)) for row in rows]
    return [reduce(below, frames) for frames in zip(*shown, strict=True)]


def strip(panels: Panels) -> list[Image.Image]:
    """All in a row, without labels and gaps: what the slider in the node cuts its picture from."""
    cell = _cell(panels, len(panels.clips), WIPE_PANEL)
    return [contact_sheet([shown], cell, gap=0) for shown in zip(*panels.clips, strict=True)]


def wipe(panels: Panels, fps: float) -> list[Image.Image]:
    """Each clip wiped away by the next, and the last by the first. The clips are repeated for as long as that takes."""
    count, length = len(panels.clips), len(panels.clips[0])
    cell = _cell(panels, 1, WIPE_PANEL)
    half = max(1, cell // 2 - 2)
    names = headings(panels.labels, half, _text(half))
    total = length * math.ceil(count * WIPE_SECONDS * fps / length)
    frames = []
    for i in range(total):
        k, moved = divmod(count * i / total, 1)
        old, new = int(k), (int(k) + 1) % count
        share = min(1.0, max(0.0, (moved - HOLD) / (1 - 2 * HOLD)))
        shown = [contact_sheet([[panels.clips[c][i % length]]], cell) for c in (old, new)]
        frames.append(below(contact_sheet([[names[new], names[old]]], half), _wiped(*shown, share)))
    return frames


def _wiped(old: Image.Image, new: Image.Image, share: float) -> Image.Image:
    """Left of the line the new one."""
    x = round(share * old.width)
    old.paste(new.crop((0, 0, x, new.height)))
    if 0 < x < old.width:
        ImageDraw.Draw(old).line([(x, 0), (x, old.height)], "white", 2)
    return old


def sheet(panels: Panels) -> Image.Image:
    """A row a clip, its frames spread over its length."""
    length = len(panels.clips[0])
    columns = min(length, MOST_COLUMNS)
    chosen = [round(i * (length - 1) / max(columns - 1, 1)) for i in range(columns)]
    w, h = panels.clips[0][0].size
    cell = max(1, round(min(LEAST_PANEL, SHEET_HEIGHT * w / h)))
    return contact_sheet([[clip[i] for i in chosen] for clip in panels.clips], cell, labels=panels.labels)


def images(frames: Sequence[Image.Image]) -> torch.Tensor:
    """IMAGE: (n, h, w, 3) in 0..1. An odd last row or column is left out: H.264 has none."""
    w, h = (max(2, side // 2 * 2) for side in frames[0].size)
    return torch.cat([plots.image(frame.crop((0, 0, w, h))) for frame in frames])


def report(panels: Panels, frames: torch.Tensor, mode: str, fps: float) -> str:
    """What is shown, in a line, and below what was done to the clips."""
    n, h, w, _ = frames.shape
    count, length = len(panels.clips), len(panels.clips[0])
    first = f"{count} clips of {length} frames, {mode}: {n} frames of {w}x{h} at {fps:g} fps"
    return "\n".join([first, *panels.notes])


def _cell(panels: Panels, count: int, least: int = LEAST_PANEL, rows: int = 1) -> int:
    """How wide a panel of `count` in a row is drawn: as the clip is, within what labels and players need."""
    w, h = panels.clips[0][0].size
    scale = min(max(1, least / w), MOST_WIDTH / (count * w), MOST_HEIGHT / (rows * h))
    return max(2, 2 * round(scale * w / 2))


def _text(cell: int) -> int:
    """Pixels of a heading: large panels are shown smaller than they are."""
    return max(TEXT, cell // 24)
