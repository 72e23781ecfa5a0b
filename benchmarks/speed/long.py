"""Time and memory of a sampling step of long clips, as multiples of a clip that fits one window.

    python dev.py bench long [--frames 16 24 64 256] [--latent 16] [--repeats 3]

At full SD1.5 widths with random weights, EI² r = 2, guidance 1. A run is two steps, with the windows in two
places. Lengths take turns within a round; figures are medians, on a CPU of the process's CPU time over its threads.
peak: the most that a run held at once, weights not counted.
"""

import argparse
import statistics

import torch

from tools.server.in_process import pack

from ..common import base_models, report
from ..common.alive import Alive

config, windows = pack("ei2_modules.config"), pack("ei2_modules.attention.windows")
sampling, patch = pack("nodes.host.sampling.run"), pack("nodes.host.inflating.inflate")
schedule, unet = pack("ei2_modules.diffusion.schedule"), pack("nodes.host.inflating.unet")
precision = pack("nodes.host.precision")
STEPS = 2


def run(model, frames: int, values) -> float:
    """Seconds a step."""
    noise = base_models.clip(frames, values.latent, values.latent)["samples"] * 13
    grid = schedule.ddim_schedule(unet.sigma_table(model), STEPS)
    began = report.now()
    sampling.sample(model, noise, base_models.caption(), base_models.caption(), 1.0, grid, lambda *args: None)
    return (report.now() - began) / STEPS


def peak(model, frames: int, values) -> float:
    """MiB."""
    with Alive() as alive:
        run(model, frames, values)
    return alive.peak / 2**20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, nargs="+", default=[16, 24, 64, 256])
    options.add_argument("--latent", type=int, default=16, help="on each side")
    options.add_argument("--ratio", type=int, default=2)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--precision", choices=precision.PRECISIONS, default="fp32")
    values = report.parse(options)
    with torch.inference_mode():
        model = patch.inflate(
            base_models.model(precision.PRECISIONS[values.precision]), config.InflateOptions(coarse_ratio=values.ratio)
        )
        times = {frames: [] for frames in values.frames}
        run(model, values.frames[0], values)  # the first one loads
        for _ in range(values.repeats):
            for frames, found in times.items():
                found.append(run(model, frames, values))
                print(".", end="", flush=True)
        peaks = {frames: peak(model, frames, values) for frames in values.frames}
    seconds = {frames: statistics.median(found) for frames, found in times.items()}
    first = values.frames[0]
    rows = [
        {
            "frames": frames,
            "windows": len(windows.windows(frames, config.WINDOW)),
            "s/step": seconds[frames],
            f"/ {first} frames": seconds[frames] / seconds[first],
            "frames / frames": frames / first,
            "peak MiB": round(peaks[frames]),
        }
        for frames in values.frames
    ]
    size = f"{values.latent * 8}x{values.latent * 8}"
    report.publish(rows, values, (f"frames of {size}, random weights of SD1.5's size, {values.precision}",))


if __name__ == "__main__":
    main()
