"""What one tuning step keeps for its backward pass, at full SD1.5 widths: the constant behind "auto" checkpointing.

    python dev.py bench tuning_memory [--frames 8] [--latent 16 32] [--precision fp32 bf16]

Counts the bytes of every distinct tensor autograd saves in one real step of One-Shot Tune, weights not
counted, and prints them per frame, latent pixel and byte of precision.
"""

import argparse
import json
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tools")]
import in_process

in_process.load_host()
in_process.load_pack()

import sd15
import torch


def saved_bytes(model, latent, precision: str, checkpointing: str) -> tuple[int, float]:
    """(bytes autograd keeps, seconds of the step)."""
    weights = {p.untyped_storage().data_ptr() for p in model.model.parameters()}
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    node = in_process.pack("nodes.one_shot_tune").OneShotTune
    began = time.monotonic()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        node.execute(model, latent, sd15.caption(), 1, 3e-5, 1, precision, checkpointing)
    return sum(sizes.values()), time.monotonic() - began


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--frames", type=int, default=8)
    arguments.add_argument("--latent", type=int, nargs="+", default=[16, 32])
    arguments.add_argument("--precision", nargs="+", default=["fp32", "bf16"])
    arguments.add_argument("--json", type=Path)
    options = arguments.parse_args()
    rows = []
    print(f"{'frames':>6} {'latent':>6} {'type':>5} {'checkpoint':>10} {'GiB':>7} {'constant':>9} {'s/step':>7}")
    with torch.inference_mode():
        inflate = in_process.pack("nodes.host.patch").inflate
        model = inflate(sd15.model(), in_process.pack("ei2_modules.config").InflateOptions())
        for side in options.latent:
            for precision in options.precision:
                for checkpointing in ("off", "on"):
                    latent = sd15.clip(options.frames, side, side)
                    size, seconds = saved_bytes(model, latent, precision, checkpointing)
                    width = 4 if precision == "fp32" else 2
                    constant = size / (options.frames * side * side * width)
                    row = (options.frames, side, precision, checkpointing, size / 2**30, constant, seconds)
                    print(f"{row[0]:6} {row[1]:6} {row[2]:>5} {row[3]:>10} {row[4]:7.2f} {row[5]:9.0f} {row[6]:7.1f}")
                    rows.append(row)
    if options.json:
        options.json.write_text(json.dumps({"torch": torch.__version__, "rows": rows}, indent=1))


main()
