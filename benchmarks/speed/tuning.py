"""Seconds of one tuning step at full SD1.5 widths, and the ratio to Tune-A-Video's in the same run.

    python dev.py bench tuning [--frames 8] [--latent 32] [--precision fp32 bf16] [--steps 3] [--checkpointing on]

Modes take turns, `--rounds` rounds of `--steps` + 1 steps; the first step of each is not counted. Figures are medians,
on a CPU of the process's CPU time over its threads, so that other work on the machine shows less. "/ forward" is a step
as a multiple of one pass of the inflated UNet without gradients, timed in the same run.
"""

import argparse
import contextlib
import statistics

import torch

from tools.server.in_process import pack

from ..common import base_models, report
from . import steps

MODES = {"EI² r=2": ("EI²", 2), "EI² r=4": ("EI²", 4), "Tune-A-Video": ("Tune-A-Video", 2)}


def step_seconds(base, mode: str, ratio: int, values, precision: str) -> tuple[list[float], float]:
    """Seconds of each step but the first, of a run of its own, and of one pass forwards."""
    case = steps.Case.inflated(
        base, base_models.clip(values.frames, values.latent, values.latent)["samples"], mode, ratio
    )
    passes = []
    with timed_passes(passes):
        times = steps.differences(
            lambda count, after: steps.tune(case, count, after, precision, values.checkpointing),
            values.steps,
            report.now,
        )
    return times, passes[-1]


@contextlib.contextmanager
def timed_passes(found: list[float]):
    """Seconds of every pass of the UNet without gradients: those before the first step."""
    guider = pack("nodes.host.tuning.guider").TuningGuider
    original = guider.predict_noise

    def predict(*args, **kwargs):
        began = report.now()
        out = original(*args, **kwargs)
        if not torch.is_grad_enabled():
            found.append(report.now() - began)
        return out

    guider.predict_noise = predict
    try:
        yield
    finally:
        guider.predict_noise = original


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--latent", type=int, default=32)
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--checkpointing", choices=("on", "off"), default="off")
    options.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    values, rows = report.parse(options), []
    with torch.inference_mode():
        base = base_models.model()
        for precision in values.precision:
            seconds, passes = {name: [] for name in MODES}, {name: [] for name in MODES}
            for _ in range(values.rounds):
                for name, (mode, ratio) in MODES.items():
                    times, forward = step_seconds(base, mode, ratio, values, precision)
                    seconds[name] += times
                    passes[name].append(forward)
                    print(".", end="", flush=True)
            median = {name: statistics.median(found) for name, found in seconds.items()}
            for name, value in median.items():
                rows.append({"precision": precision, "mode": name, "s/step": value,
                             "/ Tune-A-Video": value / median["Tune-A-Video"],
                             "/ forward": value / statistics.median(passes[name])})  # fmt: skip
    size = values.latent * 8
    report.publish(rows, values, (f"{values.frames} frames of {size}x{size}, random weights of SD1.5's size",))


if __name__ == "__main__":
    main()
