"""A training that can be stopped at any time and goes on as if it had not been: steps, state, learning rates."""

import copy
import json
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WARM_UP = 100  # steps
FALL, HELD, FINAL = 8000, 0.5, 0.3  # of the UNet's learning rate, see `held`
EMA = 0.998
SAVE_EVERY = 120  # seconds
REPORT_EVERY = 100  # steps


def claim(options) -> None:
    """Make the folder this run's own: another seed or other scenes must not go on from its state."""
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = {name: getattr(options, name) for name in ("what", "seed", "scenes", "autoencoder_steps")}
    path = options.out / "options.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else wanted
    if begun != wanted:
        raise SystemExit(f"{options.out} holds a training with {begun}, not {wanted}: choose another --out.")
    path.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def autocast():
    """bf16, but not on a CPU that only imitates it: one with AVX2 takes ten times as long as in fp32."""
    imitated = DEVICE.type == "cpu" and not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return torch.autocast(DEVICE.type, torch.bfloat16, enabled=not imitated)


def train(name: str, models: nn.ModuleDict, loss, steps: int, rate: float, share, options, log: dict) -> nn.ModuleDict:
    """Train, with saved state; gives the averaged models. Step k draws from a generator of its own, so that a
    resumed run draws what an uninterrupted one does."""
    state = State(options.out / f"{name}.pt", models, rate)
    if state.done > steps:
        raise SystemExit(f"{state.path} is at step {state.done}, beyond the {steps} asked for: choose another --out.")
    if state.done:
        print(f"{name}: going on at step {state.done} of {steps}", flush=True)
    start, before, began, recent = state.done, state.seconds, time.monotonic(), []
    saved = began
    for step in range(start, steps):
        random = torch.Generator().manual_seed(options.seed * 1_000_003 + step)
        recent.append(state.step(loss, random, rate * share(step, steps)))
        now = time.monotonic()
        state.seconds = before + now - began
        if state.done % REPORT_EVERY == 0 or state.done == steps:
            state.losses.append([state.done, round(torch.stack(recent).mean().item(), 5)])
            recent = []
            left = (now - began) / (state.done - start) * (steps - state.done)
            print(f"{name} {state.done}/{steps} loss {state.losses[-1][1]:.4f}, {left:.0f} s left", flush=True)
        if (now - saved > SAVE_EVERY and not recent) or state.done == steps:
            saved = now
            state.save()
    log["stages"][name] = {"steps": steps, "seconds": round(state.seconds), "losses": state.losses}
    return state.average


class State:
    """All that a stopped training goes on from."""

    def __init__(self, path: Path, models: nn.ModuleDict, rate: float):
        self.path, self.models, self.average = path, models, copy.deepcopy(models)
        self.optimiser = torch.optim.AdamW(models.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
        self.done, self.seconds, self.losses = 0, 0.0, []
        if path.exists():
            saved = torch.load(path)
            for part in ("models", "average", "optimiser"):
                getattr(self, part).load_state_dict(saved[part])
            self.done, self.seconds, self.losses = saved["done"], saved["seconds"], saved["losses"]

    def step(self, loss, random: torch.Generator, rate: float) -> Tensor:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with autocast():
            value = loss(self.models, random)
        self.optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(self.models.parameters(), 1.0)
        self.optimiser.step()
        self.done += 1
        follow(self.average, self.models, min(EMA, self.done / (self.done + 9)))
        return value.detach()

    def save(self) -> None:
        parts = {part: getattr(self, part).state_dict() for part in ("models", "average", "optimiser")}
        keep({**parts, "done": self.done, "seconds": self.seconds, "losses": self.losses}, self.path)


def keep(state: dict, path: Path) -> None:
    """Save without ever leaving half a file."""
    torch.save(state, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def cosine(step: int, steps: int) -> float:
    """Share of the learning rate: a short rise, then half a cosine down to 1 %."""
    return rise(step) * fall(step, steps)


def rise(step: int) -> float:
    return min(1.0, (step + 1) / WARM_UP)


def fall(step: int, steps: int) -> float:
    return 0.01 + 0.99 * (1 + math.cos(math.pi * min(step, steps) / steps)) / 2


def held(step: int, steps: int) -> float:
    """Share of the learning rate: along a cosine to one half, which is held; straight down over the last steps.

    Until then nothing depends on the number of steps, so that a longer run can start from a shorter one's state.
    """
    last = HELD * (steps - step) / (FINAL * steps)
    return rise(step) * max(fall(step, FALL), min(HELD, last))


def level(step: int, steps: int) -> float:
    """Share of the learning rate: whole, straight down over the last steps. Before them nothing depends on `steps`."""
    return rise(step) * min(1.0, (steps - step) / (FINAL * steps))


@torch.no_grad()
def follow(average: nn.Module, models: nn.Module, keep: float) -> None:
    """Move the average towards the models."""
    torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - keep)
    for kept, now in zip(average.buffers(), models.buffers(), strict=True):
        kept.copy_(now)
