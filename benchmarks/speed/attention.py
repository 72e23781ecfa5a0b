"""Time of each frame attention against Tune-A-Video's (SCA), at the widest layer of SD1.5.

    python dev.py bench attention [--size 64] [--frames 8] [--threads 1] [--repeats 3] [--dense]

Kinds take turns within a round, so that a busy machine slows all of them; figures are medians of CPU time
of this process. "predicted" is what the numbers of keys alone say: a query's work grows with the keys it
sees. Backward is to queries, keys and values, as in tuning. "copies" is what a call without gradients holds at its
peak beside its output, as a multiple of keys and values. Dense attention is left out above 32x32 tokens unless asked
for: FFAM at r = 1 sees as many keys.
"""

import argparse
import statistics
import time

import torch

from ei2_modules.attention.frame import ATTENTIONS, frame_attention

from ..common import report
from ..common.alive import Alive

REFERENCE = ("SCA", 1)
CASES = [("FFAM", 1), ("FFAM", 2), ("FFAM", 4), ("FFAM", 8), REFERENCE, ("first-frame", 1), ("per-frame", 1)]
DENSE, DENSE_UP_TO = ("dense", 1), 32


def keys(case: tuple[str, int], frames: int, size: tuple[int, int]) -> int:
    """How many tokens a query sees, asked of the code itself."""
    kind, ratio = case
    return ATTENTIONS[kind].sees(torch.zeros(frames, size[0] * size[1], 1), frames, size, ratio)(slice(0, 1)).shape[1]


def seconds(case: tuple[str, int], values, size: tuple[int, int], backward: bool) -> float:
    """CPU time of one call."""
    kind, ratio = case
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(values.frames, size[0] * size[1], values.width, generator=generator) for _ in range(3))
    for x in (q, k, v):
        x.requires_grad_(backward)
    began = time.process_time()
    out = frame_attention(q, k, v, kind=kind, heads=values.heads, frames=values.frames, size=size, ratio=ratio)
    if backward:
        out.sum().backward()
    return time.process_time() - began


def copies(case: tuple[str, int], values, size: tuple[int, int]) -> float:
    """Memory at the peak of a call without gradients, beyond its output, in units of K and V."""
    kind, ratio = case
    q, k, v = torch.randn(3, values.frames, size[0] * size[1], values.width)
    with torch.no_grad(), Alive() as alive:
        frame_attention(q, k, v, kind=kind, heads=values.heads, frames=values.frames, size=size, ratio=ratio)
    return (alive.peak - q.nbytes) / (k.nbytes + v.nbytes)


def measure(cases: list, values) -> dict:
    """(case, backward) -> times, one a round."""
    times = {(case, backward): [] for case in cases for backward in (False, True)}
    for case, backward in times:
        seconds(case, values, (8, 8), backward)  # first calls are slow
    for _ in range(values.repeats):
        for (case, backward), found in times.items():
            found.append(seconds(case, values, (values.size, values.size), backward))
        print(".", end="", flush=True)
    return times


def rows_of(cases: list, times: dict, values) -> list[dict]:
    size = (values.size, values.size)
    median = {key: statistics.median(found) for key, found in times.items()}
    rows = []
    for case in cases:
        count = keys(case, values.frames, size)
        rows.append(
            {
                "attention": f"FFAM r={case[1]}" if case[0] == "FFAM" else case[0],
                "keys": count,
                "predicted": count / keys(REFERENCE, values.frames, size),
                "forward / SCA": median[case, False] / median[REFERENCE, False],
                "with backward / SCA": median[case, True] / median[REFERENCE, True],
                "forward s": median[case, False],
                "with backward s": median[case, True],
                "copies": copies(case, values, size),
            }
        )
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=64, help="tokens on each side of a frame")
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--width", type=int, default=320)
    options.add_argument("--heads", type=int, default=8)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--dense", action="store_true", help="time dense attention at any size")
    values = report.parse(options)
    cases = CASES + ([DENSE] if values.dense or values.size <= DENSE_UP_TO else [])
    what = (
        f"{values.frames} frames of {values.size}x{values.size} tokens, {values.heads} heads, {values.width} wide, fp32"
    )
    report.publish(rows_of(cases, measure(cases, values), values), values, (what,))


if __name__ == "__main__":
    main()
