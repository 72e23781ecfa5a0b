"""What fixed-point iterations buy: a clip inverted to noise and sampled back at guidance 1.

    python dev.py bench inversion [--frames 8] [--latent 8] [--steps 50] [--iterations 0 1 2 3 5 10]

The model is a miniature UNet with random weights and eps-prediction, inflated with STAM and FFAM. How far a
step can be undone depends on how fast the predicted noise changes with the latent, so that is varied:
`output` scales the last convolution. A trained model lies elsewhere on this line: read the trend, not the dB.
"""

import argparse
import time

import torch

from ei2_modules.diffusion.schedule import ddim_schedule
from ei2_modules.metrics.figures import psnr
from tools.server.in_process import pack

from ..common import miniature, report

inflate_unet, unet = pack("nodes.inflate_unet"), pack("nodes.host.inflating.unet")
sampling, span = pack("nodes.host.sampling.run"), pack("nodes.host.sampling.round_trip").span


class Counted:
    """How often the UNet was run, in and after `with`."""

    def __init__(self, model):
        self.unet, self.calls = model.model.diffusion_model, 0

    def __enter__(self):
        self.handle = self.unet.register_forward_pre_hook(self._count)
        return self

    def __exit__(self, *error):
        self.handle.remove()

    def _count(self, *args):
        self.calls += 1


def inflated(model):
    """With STAM and FFAM at r = 2, their random start from seed 33."""
    return inflate_unet.InflateUNet.execute(model, "EI²", 2, "STAM", "FFAM", "random", 33).args[0]


def silent(*args) -> None:
    """No progress bar."""


def round_trip(model, samples, schedule, iterations: int) -> dict:
    """Invert and sample back under the same caption."""
    caption = miniature.caption()
    began = time.process_time()
    with Counted(model) as there:
        noise, convergence = sampling.invert(model, samples, caption, schedule, iterations, silent)
    seconds = time.process_time() - began
    with Counted(model) as back:
        clip = sampling.sample(model, noise, caption, caption, 1.0, schedule, silent)
    quality = psnr(clip, samples, span(samples)).tolist()
    return {
        "iterations": iterations,
        "PSNR dB": round(sum(quality) / len(quality), 1),
        "worst frame dB": round(min(quality), 1),
        "worst residual": max(convergence.residuals, default=None),
        "calls to invert": there.calls,
        "CPU s to invert": seconds,
        "calls to sample": back.calls,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, default=8)
    options.add_argument("--latent", type=int, default=8)
    options.add_argument("--steps", type=int, default=50)
    options.add_argument("--iterations", type=int, nargs="+", default=[0, 1, 2, 3, 5, 10])
    options.add_argument("--output", type=float, nargs="+", default=[0.05, 0.3])
    values, rows = report.parse(options), []
    samples = miniature.clip(values.frames, values.latent, values.latent)["samples"]
    with torch.inference_mode():
        for scale in values.output:
            model = inflated(miniature.model(scale=scale))
            table = unet.sigma_table(model)
            schedule = ddim_schedule(table, values.steps)
            round_trip(model, samples, ddim_schedule(table, 1), 0)  # warm up
            for iterations in values.iterations:
                rows.append({"output": scale} | round_trip(model, samples, schedule, iterations))
                print(".", end="", flush=True)
    what = f"{values.frames} frames of {values.latent}x{values.latent} latents, {values.steps} steps, guidance 1, fp32"
    report.publish(rows, values, (what,))


if __name__ == "__main__":
    main()
