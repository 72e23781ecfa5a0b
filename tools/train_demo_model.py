"""Train the miniature model that ships with the pack, from nothing, on rendered scenes.

First the autoencoder, then the UNet together with its text encoder on scenes encoded once. The state is saved every
two minutes; the same command goes on from it, and ends with the same weights as a run that was never stopped.
"""

import argparse
import copy
import json
import math
import platform
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import in_process
import torch
import torch.nn.functional as F
from in_process import ROOT, pack
from torch import Tensor, nn

in_process.load_host()
in_process.load_pack()
autoencoder, scenes, text_encoder, vocabulary, weights = (
    pack(f"ei2_modules.demo.{name}") for name in ("autoencoder", "scenes", "text_encoder", "vocabulary", "weights")
)
demo_model = pack("nodes.host.demo_model")

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
LOG = ROOT / "benchmarks" / "results" / "demo_model_training.json"
BATCH = 32
WARM_UP = 100  # steps
OFFSET_NOISE = 0.25  # one more normal number a channel: else the last noise still shows the mean of a background,
#                      and the words for it are never learnt. Not divided out, or grain stays in the pictures.
FALL, HELD, FINAL = 8000, 0.5, 0.3  # of the UNet's learning rate, see `held`
MOST_WEIGHT = 6.0  # of the loss at high noise, where colours and places are decided
NO_CAPTION = 0.1  # share of captions left out, for guidance
EMA = 0.998
SAVE_EVERY = 120  # seconds
REPORT_EVERY = 100  # steps


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_model"), help="folder of state and result")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenes", type=int, default=60000)
    parser.add_argument("--autoencoder-steps", type=int, default=3000)
    parser.add_argument("--unet-steps", type=int, default=12000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


def claim(options) -> None:
    """Make the folder this run's own: another seed or other scenes must not go on from its state."""
    options.out.mkdir(parents=True, exist_ok=True)
    wanted = {name: getattr(options, name) for name in ("seed", "scenes", "autoencoder_steps")}
    path = options.out / "options.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else wanted
    if begun != wanted:
        raise SystemExit(f"{options.out} holds a training with {begun}, not {wanted}: choose another --out.")
    path.write_text(json.dumps(wanted) + "\n", encoding="utf-8")


def machine() -> dict:
    device = torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    return {"device": device, "torch": torch.__version__, "python": platform.python_version()}


def pictures(pool: list) -> Tensor:
    """(n, 3, h, w) in -1..1."""
    return 2 * scenes.render(pool)[0].permute(0, 3, 1, 2).to(DEVICE) - 1


def train_autoencoder(options, pool: list, log: dict):
    torch.manual_seed(options.seed)
    model = autoencoder.Autoencoder().to(DEVICE)

    def loss(models: nn.ModuleDict, random: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pool), (BATCH,), generator=random).tolist()
        return autoencoder.loss(models["autoencoder"], pictures([pool[i] for i in chosen]), random)

    steps = options.autoencoder_steps
    models = train("autoencoder", nn.ModuleDict({"autoencoder": model}), loss, steps, 2e-3, cosine, options, log)
    model = models["autoencoder"]
    centre(model, pool[:2048])
    return model.eval()


@torch.no_grad()
def centre(model, pool: list) -> None:
    """Mean and spread of the latents, exactly."""
    norm = model.encoder[-1]
    norm.reset_running_stats()
    norm.momentum = None  # a plain average
    model.train()
    for start in range(0, len(pool), 256):
        model.encode(pictures(pool[start : start + 256]))


@torch.no_grad()
def encoded(options, coder, pool: list, captions: list[str]) -> tuple[Tensor, Tensor]:
    """Latents and tokens of all scenes."""
    path = options.out / "encoded.pt"
    if path.exists():
        return torch.load(path)["latents"].to(DEVICE), vocabulary.batch(captions).to(DEVICE)
    began = time.monotonic()
    with autocast():
        parts = [coder.encode(pictures(pool[i : i + 64])).half() for i in range(0, len(pool), 64)]
    print(f"{len(pool)} scenes encoded in {time.monotonic() - began:.0f} s", flush=True)
    keep({"latents": torch.cat(parts)}, path)
    return torch.cat(parts), vocabulary.batch(captions).to(DEVICE)


def train_unet(options, latents: Tensor, tokens: Tensor, log: dict):
    torch.manual_seed(options.seed)
    models = nn.ModuleDict({"unet": demo_model.new_unet(), "encoder": text_encoder.TextEncoder()}).to(DEVICE)
    abar = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)
    empty = vocabulary.batch([""]).to(DEVICE)

    def loss(models: nn.ModuleDict, random: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (BATCH,), generator=random)
        clean = latents[chosen].float()
        noise = torch.randn(clean.shape, generator=random)
        noise = (noise + OFFSET_NOISE * torch.randn(*clean.shape[:2], 1, 1, generator=random)).to(DEVICE)
        t = torch.randint(1000, (BATCH,), generator=random)
        untold = (torch.rand(BATCH, 1, generator=random) < NO_CAPTION).to(DEVICE)
        a = abar[t].view(-1, 1, 1, 1).to(DEVICE)
        context = models["encoder"](torch.where(untold, empty, tokens[chosen]))
        settings = {"optimized_attention_override": attention}
        found = models["unet"](
            a.sqrt() * clean + (1 - a).sqrt() * noise, t.to(DEVICE), context=context, transformer_options=settings
        )
        error = F.mse_loss(found.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        return (error * (1 / a.flatten()).clamp(max=MOST_WEIGHT)).mean()

    models = train("unet", models, loss, options.unet_steps, 1.2e-3, held, options, log)
    return models["unet"], models["encoder"]


def attention(_, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
    """Two matrix products: in bf16 on a CPU the fused attention's gradient takes half of a step's time."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    weight = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype)
    return (weight @ v).unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


def autocast():
    return torch.autocast(DEVICE.type, torch.bfloat16)


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


@torch.no_grad()
def follow(average: nn.Module, models: nn.Module, keep: float) -> None:
    """Move the average towards the models."""
    torch._foreach_lerp_(list(average.parameters()), list(models.parameters()), 1 - keep)
    for kept, now in zip(average.buffers(), models.buffers(), strict=True):
        kept.copy_(now)


@torch.no_grad()
def preview(coder, pool: list) -> dict[str, Tensor]:
    """The matrix that turns latents into colours best, for the host's previews."""
    clean = pictures(pool[:512])
    latents = coder.encode(clean).permute(0, 2, 3, 1).flatten(0, 2)
    colours = F.avg_pool2d(clean, autoencoder.FACTOR).permute(0, 2, 3, 1).flatten(0, 2)
    design = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, colours).solution
    return {"factors": solution[:-1], "bias": solution[-1]}


if __name__ == "__main__":
    sys.exit(main())
