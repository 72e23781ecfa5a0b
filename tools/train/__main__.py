"""Train the miniature model that ships with the pack, from nothing, on rendered scenes; or its ControlNet.

model: first the autoencoder, then the UNet together with its text encoder on scenes encoded once. controlnet: on the
model that is shipped, which stays as it is. The state is saved every two minutes; the same command goes on from it,
and ends with the same weights as a run that was never stopped.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import torch

from ei2_modules.demo import scenes, weights

from .. import ROOT
from . import controlnet
from .demo_model import BATCH, encoded, preview, train_autoencoder, train_unet
from .loop import DEVICE, claim

RESULTS = ROOT / "benchmarks" / "results"


def main() -> int:
    options = parse()
    claim(options)
    log = {"seed": options.seed, "batch": BATCH, "scenes": options.scenes, "machine": machine(), "stages": {}}
    print(f"Rendering from {options.scenes} scenes on {DEVICE}; state and result in {options.out}", flush=True)
    pool = scenes.scenes_to_train_on(options.seed, options.scenes)
    write, shipped = {"model": (write_model, weights.FILE), "controlnet": (write_controlnet, weights.CONTROLNET)}[
        options.what
    ]
    result = options.out / shipped.name
    write(result, options, *pool, log)
    kept = options.out / f"demo_{options.what}_training.json"
    kept.write_text(json.dumps(log, indent=1) + "\n", encoding="utf-8")
    print(f"{result}: {result.stat().st_size / 1e6:.1f} MB. To ship it: copy it to {shipped}, {kept} to {RESULTS}")
    return 0


def write_model(result: Path, options, pool: list, captions: list[str], log: dict) -> None:
    coder = train_autoencoder(options, pool, log)
    unet, encoder = train_unet(options, *encoded(options, coder, pool, captions), log)
    parts = (part.state_dict() for part in (unet, encoder, coder))
    weights.save(result, weights.DemoWeights(*parts, preview(coder, pool), training(log)))


def write_controlnet(result: Path, options, pool: list, captions: list[str], log: dict) -> None:
    log["batch"] = controlnet.BATCH
    net = controlnet.train_controlnet(options, pool, captions, log)
    weights.save_controlnet(result, net.state_dict(), training(log))


def training(log: dict) -> dict:
    """What the file says of how it was made."""
    steps = {f"{name}_steps": stage["steps"] for name, stage in log["stages"].items()}
    return {name: log[name] for name in ("seed", "batch", "scenes")} | steps


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python dev.py train", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["model", "controlnet"], default="model")
    parser.add_argument("--out", type=Path, default=Path("demo_model"), help="folder of state and result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=60000)
    parser.add_argument("--autoencoder-steps", type=int, default=3000)
    parser.add_argument("--unet-steps", type=int, default=12000)
    parser.add_argument("--controlnet-steps", type=int, default=1200)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def machine() -> dict:
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"device": device, "torch": torch.__version__, "python": platform.python_version()}


if __name__ == "__main__":
    sys.exit(main())
