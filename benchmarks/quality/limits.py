"""What no edit can do better than: how the true edited clips measure, and what the autoencoder makes of them."""

import torch

from . import cases as q
from . import report
from .measures import Truth, measure

NAMES = {"mae": 255, "outside_mae": 255, "warp_outside": 1, "warp_object": 1}  # to 0 to 255


def limits(cases: list[q.Case]) -> str:
    """Markdown: a line for each kind of edit and each of the two, means over the clips."""
    from .run import editor  # loads the host, which the command itself does without

    lines = []
    with torch.inference_mode():
        for kind in q.KINDS:
            truths = [Truth(case.clip, case.edits[kind]) for case in cases]
            again = [editor().decode(editor().vae.encode(truth.images)) for truth in truths]
            for name, clips in {"the true clip": [truth.images for truth in truths], "its round trip": again}.items():
                found = [measure(clip, truth) for clip, truth in zip(clips, truths, strict=True)]
                lines.append([kind, name, *(_mean(found, measured, scale) for measured, scale in NAMES.items())])
    return report.table(["edit", "of", *(report.HEADINGS[name] for name in NAMES)], lines)


def _mean(found: list[dict], name: str, scale: int) -> str:
    return report.number(scale * report.average(one[name] for one in found))
