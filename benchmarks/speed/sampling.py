"""Seconds of a sampling step of the inflated UNet over those of the stock KSampler, against what counting says.

    python dev.py bench sampling [--frames 8] [--latent 32] [--steps 3] [--rounds 1] [--precision fp32]

At full SD1.5 widths with random weights, with guidance, the same batch of frames for all. Modes take turns; figures are
medians of one step, on a CPU of the process's CPU time over its threads. "counted" is the ratio of the multiplications
and additions of one pass of the UNet, "over" what the measured ratio is of it: what is left is copying, normalising and
small calls. calls: passes of the UNet a step, cond and uncond in one.
"""

import argparse
import statistics

import torch

from tools.server.in_process import host, pack

from ..common import base_models, flops, report
from .steps import counted_calls, differences

host_sample = host("comfy.sample").sample
config, patch = pack("ei2_modules.config"), pack("nodes.host.inflating.inflate")
sampling, unet = pack("nodes.host.sampling.run"), pack("nodes.host.inflating.unet")
schedule, precision = pack("ei2_modules.diffusion.schedule"), pack("nodes.host.precision")
STOCK, INVERSION = "stock KSampler", "inversion, EI² r=2"
MODES = {"EI² r=2": ("EI²", 2), "EI² r=4": ("EI²", 4), "Tune-A-Video": ("Tune-A-Video", 2)}
GUIDANCE = 7.5


def models(values) -> dict:
    base = base_models.model(precision.PRECISIONS[values.precision])
    found = {STOCK: base}
    for name, (mode, ratio) in MODES.items():
        found[name] = patch.inflate(base, config.InflateOptions.from_mode(mode, "", "", coarse_ratio=ratio))
    return found | {INVERSION: found["EI² r=2"]}


def run(name: str, model, steps: int, values, on_step) -> None:
    """Through the way a user takes."""
    noise = base_models.clip(values.frames, values.latent, values.latent)["samples"]
    text, table = base_models.caption(), unet.sigma_table(model)
    if name == STOCK:
        host_sample(
            model, noise, steps, GUIDANCE, "euler", "normal", text, text, torch.zeros_like(noise),
            callback=on_step, disable_pbar=True, seed=0,
        )  # fmt: skip
    elif name == INVERSION:
        sampling.invert(model, noise, text, schedule.ddim_schedule(table, steps), 0, on_step)
    else:
        sampling.sample(model, noise, text, text, GUIDANCE, schedule.ddim_schedule(table, steps), on_step)


def step_seconds(name: str, model, values) -> list[float]:
    """Of each step but the first."""
    return differences(lambda steps, after: run(name, model, steps, values, after), values.steps, report.now)


def count(name: str, model, values) -> tuple[float, float]:
    """(floating-point operations, calls of the UNet) of one step."""
    calls: list[int] = []
    with counted_calls(model, calls), flops.counter() as counter:
        run(name, model, 1, values, lambda *args: None)
    return counter.get_total_flops(), len(calls)


def row(name: str, seconds: dict, counts: dict) -> dict:
    """Inversion has half the batch, for which there is nothing to compare with here."""
    operations, calls = counts[name]
    measured, counted = seconds[name] / seconds[STOCK], operations / counts[STOCK][0]
    over = None if name == INVERSION else measured / counted
    return {"step of": name, "s": seconds[name], "/ stock": measured, "counted": counted, "over": over,
            "TFLOP": operations / 1e12, "calls": calls}  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--latent", type=int, default=32, help="on each side")
    options.add_argument("--steps", type=int, default=3)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--precision", choices=precision.PRECISIONS, default="fp32")
    values, rows = report.parse(options), []
    with torch.inference_mode():
        chosen = models(values)
        counts = {name: count(name, model, values) for name, model in chosen.items()}
        times = {name: [] for name in chosen}
        for _ in range(values.rounds):
            for name, model in chosen.items():
                times[name] += step_seconds(name, model, values)
                print(".", end="", flush=True)
    seconds = {name: statistics.median(found) for name, found in times.items()}
    for name in chosen:
        rows.append(row(name, seconds, counts))
    clip = f"{values.frames} frames of {values.latent * 8}x{values.latent * 8}"
    report.publish(rows, values, (f"{clip}, guidance {GUIDANCE}, random weights of SD1.5's size, {values.precision}",))


if __name__ == "__main__":
    main()
