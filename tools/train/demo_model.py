"""The parts of the miniature model and what each is trained on: the autoencoder, then UNet and text encoder."""

import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ei2_modules.demo import autoencoder, scenes, text_encoder, vocabulary

from ..server.in_process import pack
from .loop import DEVICE, autocast, cosine, held, keep, train

demo_model = pack("nodes.host.demo_model")

BATCH = 32
OFFSET_NOISE = 0.25  # one more normal number a channel: else the last noise still shows the mean of a background,
#                      and the words for it are never learnt. Not divided out, or grain stays in the pictures.
MOST_WEIGHT = 6.0  # of the loss at high noise, where colours and places are decided
ALPHA_BAR = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)  # Stable Diffusion's
NO_CAPTION = 0.1  # share of captions left out, for guidance


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
    empty = vocabulary.batch([""]).to(DEVICE)

    def loss(models: nn.ModuleDict, random: torch.Generator) -> Tensor:
        chosen = torch.randint(len(latents), (BATCH,), generator=random)
        noisy, noise, t, a = noised(latents[chosen].float(), random)
        untold = (torch.rand(BATCH, 1, generator=random) < NO_CAPTION).to(DEVICE)
        context = models["encoder"](torch.where(untold, empty, tokens[chosen]))
        settings = {"optimized_attention_override": attention}
        found = models["unet"](noisy, t, context=context, transformer_options=settings)
        error = F.mse_loss(found.float(), noise, reduction="none").mean(dim=(1, 2, 3))
        return (error * (1 / a.flatten()).clamp(max=MOST_WEIGHT)).mean()

    models = train("unet", models, loss, options.unet_steps, 1.2e-3, held, options, log)
    return models["unet"], models["encoder"]


def noised(clean: Tensor, random: torch.Generator, highest_of: int = 1) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(latents at a random step each, their noise, the steps, alpha bar of the steps as (n, 1, 1, 1))."""
    noise = torch.randn(clean.shape, generator=random)
    noise = (noise + OFFSET_NOISE * torch.randn(*clean.shape[:2], 1, 1, generator=random)).to(DEVICE)
    t = torch.randint(1000, (highest_of, len(clean)), generator=random).amax(0)
    a = ALPHA_BAR[t].view(-1, 1, 1, 1).to(DEVICE)
    return a.sqrt() * clean + (1 - a).sqrt() * noise, noise, t.to(DEVICE), a


def attention(_, q: Tensor, k: Tensor, v: Tensor, heads: int, *args, **kwargs) -> Tensor:
    """Two matrix products: in bf16 on a CPU the fused attention's gradient takes half of a step's time."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1) for t in (q, k, v))
    weight = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1).to(v.dtype)
    return (weight @ v).unflatten(0, (-1, heads)).transpose(1, 2).flatten(2)


@torch.no_grad()
def preview(coder, pool: list) -> dict[str, Tensor]:
    """The matrix that turns latents into colours best, for the host's previews."""
    clean = pictures(pool[:512])
    latents = coder.encode(clean).permute(0, 2, 3, 1).flatten(0, 2)
    colours = F.avg_pool2d(clean, autoencoder.FACTOR).permute(0, 2, 3, 1).flatten(0, 2)
    design = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1)
    solution = torch.linalg.lstsq(design, colours).solution
    return {"factors": solution[:-1], "bias": solution[-1]}
