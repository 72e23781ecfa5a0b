"""Seconds of a sampling step under attention control over those of the plain guided step, and what control holds.

    python dev.py bench control [--model sd15] [--frames 8] [--latent 16] [--steps 4] [--rounds 1]

With random weights: of SD1.5's size, or of a miniature model. A plain step is two passes over the clip, in one call of
the UNet; control adds one over the source, so about 1.5 is what counting says. "everything" takes all that can be taken
in every step; a kind of edit takes its shares of the steps. Modes take turns; figures are means over the steps of a run
but the first, medians over rounds. "counted" is the ratio of floating-point operations, "passes" over the clip a step.
keeps: MiB that a step takes of its source, at most; over: MiB at the peak of a run beyond the plain one's; grows: KiB
that are more in use at the end of the last step than at that of the one before. Null-Text Inversion is run
once, with two steps.
"""

import argparse
import contextlib
import functools
import statistics
from dataclasses import dataclass

import numpy as np
import torch

from tools.server.in_process import pack

from ..common import base_models, flops, miniature, report
from ..common.alive import Alive
from . import steps

guiding, ControlOptions = steps.guiding, steps.ControlOptions
KINDS = pack("ei2_modules.attention.control.options").KINDS
PRECISIONS = pack("nodes.host.precision").PRECISIONS
PLAIN, EVERYTHING = "plain", "everything"
MODELS = {
    "sd15": lambda dtype: (base_models.model(dtype), base_models.caption()),
    "miniature": lambda dtype: (miniature.model(stored=dtype, computes=dtype), miniature.caption()),
}


@dataclass(frozen=True)
class Counted:
    """Of a step; the same in every round."""

    flop: float
    passes: float
    grows: float  # bytes
    keeps: int  # bytes
    peak: int  # bytes, of the run


def run_of(case: steps.Case, name: str) -> steps.Run:
    if name == PLAIN:
        return functools.partial(steps.sample, case)
    options = steps.EVERYTHING if name == EVERYTHING else ControlOptions.of_kind(name)
    return functools.partial(steps.controlled, case, options=options)


def count(case: steps.Case, name: str, number: int) -> Counted:
    case.noisy(number + 1)  # is the inversion's, and there before
    calls, kept = [], [0]
    with steps.counted_calls(case.model, calls), noted(kept), Alive() as alive, flops.counter() as counter:

        def read() -> np.ndarray:
            return np.array([counter.get_total_flops(), sum(calls) / len(case.clip), alive.now])

        found = np.array(steps.differences(run_of(case, name), number, read))  # (steps, 3)
    flop, passes, _ = found.mean(axis=0)
    return Counted(float(flop), float(passes), float(found[-1, 2]), max(kept), alive.peak)


@contextlib.contextmanager
def noted(found: list[int]):
    """Bytes of what each step has taken of its source when the edit's own pass begins."""
    original = guiding.Editing

    def editing(step):
        storages = (x.untyped_storage() for tensors in step.recorded.values() for x in tensors)
        found.append(sum({x.data_ptr(): x.nbytes() for x in storages}.values()))
        return original(step)

    guiding.Editing = editing
    try:
        yield
    finally:
        guiding.Editing = original


def seconds(case: steps.Case, names: list[str], number: int, rounds: int) -> dict[str, float]:
    found = {name: [] for name in names}
    for _ in range(rounds):
        for name, times in found.items():
            times.append(statistics.mean(steps.differences(run_of(case, name), number, report.now)))
            print(".", end="", flush=True)
    return {name: statistics.median(times) for name, times in found.items()}


def rows_of(case: steps.Case, names: list[str], number: int, rounds: int) -> list[dict]:
    names = [PLAIN, *names]
    counts = {name: count(case, name, number) for name in names}  # the first runs, which also load
    times, plain = seconds(case, names, number, rounds), counts[PLAIN]
    return [
        {
            "step": name, "s": times[name], "/ plain": times[name] / times[PLAIN], "counted": found.flop / plain.flop,
            "passes": found.passes, "keeps MiB": found.keeps / 2**20, "over MiB": (found.peak - plain.peak) / 2**20,
            "grows KiB": found.grows / 2**10,
        }
        for name, found in counts.items()
    ]  # fmt: skip


def null_text(case: steps.Case, updates: int, plain: float) -> dict[str, float]:
    """Of a step of Null-Text Inversion, with sampling before and after: seconds, over the plain step's, and counted."""
    number, began = 2, report.now()
    with flops.counter() as counter:
        steps.null_text(case, number, updates)
    took, flop = (report.now() - began) / number, counter.get_total_flops() / number
    return {"s": took, "/ plain": took / plain, "counted": flop / count(case, PLAIN, 2).flop}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", choices=MODELS, default="sd15")
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--latent", type=int, default=16, help="on each side")
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--kinds", nargs="*", choices=KINDS, default=list(KINDS)[:4], help="of edits")
    options.add_argument("--precision", choices=PRECISIONS, default="fp32")
    options.add_argument("--updates", type=int, default=10, help="a step of Null-Text Inversion makes; 0: leave it out")
    values = report.parse(options)
    with torch.inference_mode():
        base, text = MODELS[values.model](PRECISIONS[values.precision])
        clip = base_models.clip(values.frames, values.latent, values.latent)["samples"]
        case = steps.Case.inflated(base, clip, text=text)
        rows = rows_of(case, [EVERYTHING, *values.kinds], values.steps, values.rounds)
        found = null_text(case, values.updates, rows[0]["s"]) if values.updates else None
    side = values.latent * 8
    what = f"{values.frames} frames of {side}x{side}, guidance {steps.GUIDANCE}, {values.steps} steps of a run counted"
    notes = [f"{what}, random weights of {values.model}, {values.precision}"]
    if found:
        notes.append(
            f"Null-Text Inversion, {values.updates} updates a step: {found['s']:.3g} s a step, "
            f"{found['/ plain']:.3g} times the plain one's; by counting {found['counted']:.3g}"
        )
    report.publish(rows, values, tuple(notes))


if __name__ == "__main__":
    main()
