"""What one tuning step needs at full widths: the constants behind gradient checkpointing "auto".

    python dev.py bench tuning_memory [--frames 8] [--latent 8 16 32] [--precision fp32 bf16]
    python dev.py bench tuning_memory --family sdxl --width 128    (320, its own, takes some 20 GiB)

kept:  storages that autograd saves in the forward pass of one real step, weights not counted. Hooks do not
       nest: inside a checkpointed block only the checkpoint's own hook sees what is saved, which is right,
       for that is thrown away; the block's input is saved outside it and counted.
peak:  the most that was alive at once in forward and backward, temporaries and one recomputed block included.
fixed: the part that does not grow with the latent (weights cast or normalised for this step), from a line
       through this size and the one before; per pixel: the slope of that line, per frame, latent pixel and
       byte of precision. In proportion to the width.
estimate: what nodes/host/tuning/preflight.py says of it before the step.
"""

import argparse
import contextlib

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from tools.server.in_process import pack

from ..common import base_models, report
from ..common.alive import Alive

training = pack("nodes.host.tuning.run")
GIB = 2**30


class Saved:
    """Distinct storages that autograd saves; those of `modules()` are not counted."""

    def __init__(self, modules):
        self.modules, self.sizes, self.skip = modules, {}, None

    def pack(self, tensor):
        if self.skip is None:  # not before the step: loading for training replaces the model's parameters
            own = (t for m in self.modules() for t in (*m.parameters(), *m.buffers()))
            self.skip = {t.untyped_storage().data_ptr() for t in own}
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.skip:
            self.sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def hooks(self):
        return torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)


@contextlib.contextmanager
def during_forward_and_backward(*watchers):
    """Enter them before the forward pass of a step and leave before the optimiser."""
    original, stack = training.TuningGuider.denoise, contextlib.ExitStack()

    def denoise(*args):
        for watcher in watchers:
            stack.enter_context(watcher)
        return original(*args)

    handle = register_optimizer_step_pre_hook(lambda *args: stack.close())
    training.TuningGuider.denoise = denoise
    try:
        yield
    finally:
        stack.close()
        training.TuningGuider.denoise = original
        handle.remove()


def one_step(model, samples, text, precision: str, checkpointing: str) -> dict:
    """Bytes kept and bytes at the peak of a run of one step."""
    inflated = pack("nodes.host.inflating.inflate").inflated_of(model, "this benchmark")
    options = pack("ei2_modules.config").TuningOptions(1, window=len(samples))  # the clip whole
    texts = pack("nodes.host.conditioning").Texts(text)
    job = training.TuningJob(model, inflated, samples, texts, options, precision=precision, checkpointing=checkpointing)
    run = training.TuningRun(job)
    saved = Saved(lambda: (model.model, run.tuning.trainables))
    alive = Alive()
    with during_forward_and_backward(saved.hooks(), alive):
        run.execute(None, lambda *args: None)
    estimate = run.demand.bytes - 2 * 4 * run.tuning.trainables.count()  # the optimiser's moments come later
    return {"kept": sum(saved.sizes.values()), "peak": alive.peak, "estimate": estimate}


def rows_of(model, values, frames: int, precision: str, checkpointing: str) -> list[dict]:
    """One row a size, each with the line through it and the size before."""
    rows, before = [], None
    width = pack("nodes.host.precision").PRECISIONS[precision].itemsize
    for side in sorted(values.latent):
        clip, text = base_models.clip(frames, side, side)["samples"], base_models.caption(values.family)
        found = one_step(model, clip, text, precision, checkpointing)
        found["units"] = frames * side * side * width
        row = {"frames": frames, "latent": side, "precision": precision, "checkpointing": checkpointing}
        for name in ("kept", "peak"):
            slope = (found[name] - before[name]) / (found["units"] - before["units"]) if before else None
            row[f"{name} GiB"] = found[name] / GIB
            row[f"{name} fixed GiB"] = (found[name] - slope * found["units"]) / GIB if before else None
            row[f"{name} per pixel"] = round(slope) if before else None
        row["estimate GiB"] = found["estimate"] / GIB
        row["off by %"] = 100 * (found["estimate"] / found["peak"] - 1)
        rows.append(row)
        before = found
        print(".", end="", flush=True)
    return rows


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--frames", type=int, nargs="+", default=[8])
    options.add_argument("--latent", type=int, nargs="+", default=[8, 16, 32])
    options.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    options.add_argument("--checkpointing", nargs="+", default=["off", "on"])
    options.add_argument("--mode", default="EI²")
    options.add_argument("--family", choices=base_models.FAMILIES, default="sd15")
    options.add_argument("--width", type=int, default=320, help="of the UNet's first level")
    values, rows = report.parse(options), []
    chosen = pack("ei2_modules.config").InflateOptions.from_mode(values.mode, "", "")
    with torch.inference_mode():
        base = base_models.model(family=values.family, width=values.width)
        model = pack("nodes.host.inflating.inflate").inflate(base, chosen)
        for frames in values.frames:
            for precision in values.precision:
                for checkpointing in values.checkpointing:
                    rows += rows_of(model, values, frames, precision, checkpointing)
    report.publish(rows, values)


if __name__ == "__main__":
    main()
