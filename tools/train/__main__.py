"""Train the miniature model that ships with the pack, from nothing, on rendered scenes.

First the autoencoder, then the UNet together with its text encoder on scenes encoded once. The state is saved every
two minutes; the same command goes on from it, and ends with the same weights as a run that was never stopped.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from ei2_modules.demo import scenes, weights

from .. import ROOT
from .demo_model import BATCH, encoded, preview, train_autoencoder, train_unet
from .loop import DEVICE, claim

LOG = ROOT / "benchmarks" / "results" / "demo_model_training.json"


def main() -> int:
    options = parse()
    claim(options)
    log = {"seed": options.seed, "batch": BATCH, "scenes": options.scenes, "machine": machine(), "stages": {}}
    print(f"Rendering from {options.scenes} scenes on {DEVICE}; state and result in {options.out}", flush=True)
    pool, captions = scenes.scenes_to_train_on(options.seed, options.scenes)
    coder = train_autoencoder(options, pool, log)
    unet, encoder = train_unet(options, *encoded(options, coder, pool, captions), log)
    training = {name: log[name] for name in ("seed", "batch", "scenes")}
    training |= {f"{name}_steps": stage["steps"] for name, stage in log["stages"].items()}
    parts = (part.state_dict() for part in (unet, encoder, coder))
    result = options.out / "model.safetensors"
    weights.save(result, weights.DemoWeights(*parts, preview(coder, pool), training))
    (options.out / LOG.name).write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    print(f"{result}: {result.stat().st_size / 1e6:.1f} MB. To ship it: copy it to {weights.FILE}, the log to {LOG}")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_model"), help="folder of state and result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=60000)
    parser.add_argument("--autoencoder-steps", type=int, default=3000)
    parser.add_argument("--unet-steps", type=int, default=12000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def machine() -> dict:
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"device": device, "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(main())
