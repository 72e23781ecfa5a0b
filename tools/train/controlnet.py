"""The miniature model's ControlNet: the shipped model stays as it is, and learns to be led by Canny edges."""

from dataclasses import replace
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ei2_modules.demo import autoencoder, scenes, text_encoder, vocabulary, weights

from ..server.in_process import host, pack
from .demo_model import MOST_WEIGHT, attention, noised, pictures
from .loop import DEVICE, level, train

Canny = host("comfy_extras.nodes_canny").Canny
demo_model, demo_controlnet = pack("nodes.host.demo_model"), pack("nodes.host.demo_controlnet")

BATCH, RATE = 8, 1e-3
NO_CAPTION = 0.5  # more than the model's own: the edges must lead also where words say nothing
HIGHEST_OF = 2  # steps drawn: edges are of use while the picture is still noise
RADII, ROOM = (0.25, 0.46), 0.04  # of a scene that is one thing, in widths of the picture
THRESHOLDS = (20, 120)  # of 255, the lower one; the other is twice that


def train_controlnet(options, pool: list, captions: list[str], log: dict) -> nn.Module:
    torch.manual_seed(options.seed)
    own = Random(options.seed)
    pool, captions = zip(*(cut_out(own, *pair) for pair in zip(pool, captions, strict=True)), strict=True)
    shipped = weights.load()
    parts = (demo_model.new_unet(), text_encoder.TextEncoder(), autoencoder.Autoencoder())
    states = (shipped.unet, shipped.text_encoder, shipped.autoencoder)
    unet, encoder, coder = (still(part, state) for part, state in zip(parts, states, strict=True))
    tokens, empty = vocabulary.batch(captions).to(DEVICE), vocabulary.batch([""]).to(DEVICE)
    models = nn.ModuleDict({"controlnet": demo_controlnet.new_controlnet(shipped.unet).to(DEVICE)})

    def loss(models: nn.ModuleDict, random: torch.Generator) -> Tensor:
        chosen = torch.randint(len(pool), (BATCH,), generator=random)
        shown = pictures([pool[i] for i in chosen.tolist()])
        with torch.no_grad():
            clean = coder.encode(shown).float()
        noisy, noise, t, a = noised(clean, random, HIGHEST_OF)
        untold = (torch.rand(BATCH, 1, generator=random) < NO_CAPTION).to(DEVICE)
        context = encoder(torch.where(untold, empty, tokens[chosen]))
        told = {"context": context, "transformer_options": {"optimized_attention_override": attention}}
        control = models["controlnet"](noisy, edges(shown, random), t, **told)
        error = F.mse_loss(unet(noisy, t, control=control, **told).float(), noise, reduction="none")
        return (error.mean(dim=(1, 2, 3)) * (1 / a.flatten()).clamp(max=MOST_WEIGHT)).mean()

    return train("controlnet", models, loss, options.controlnet_steps, RATE, level, options, log)["controlnet"]


def cut_out(random: Random, scene: scenes.Scene, caption: str) -> tuple[scenes.Scene, str]:
    """Every other scene becomes what Edit Key Frames shows of one: its thing, large and on black."""
    radius = random.uniform(*RADII)
    place = {axis: 0.5 + random.uniform(-ROOM, ROOM) for axis in "xy"}
    alone = len(scene.things) == 1 and scene.bar is None and scene.things[0].colour != "black"
    large = replace(scene.change(radius=radius, **place), background="black", light=(0.0, 0.0))
    if random.random() < 0.5 or not alone or scenes.held_out(large):
        return scene, caption
    return large, scenes.caption(large)


def still(part: nn.Module, state: dict) -> nn.Module:
    part.load_state_dict(state)
    return part.to(DEVICE).eval().requires_grad_(False)


def edges(shown: Tensor, random: torch.Generator) -> Tensor:
    """(n, 3, h, w) in -1..1 -> white edges on black, (n, 3, 2h, 2w) in 0..1, as the host hands them to a ControlNet."""
    low = THRESHOLDS[0] + (THRESHOLDS[1] - THRESHOLDS[0]) * torch.rand((), generator=random).item()
    found = Canny.execute((shown.movedim(1, -1) + 1) / 2, low / 255, 2 * low / 255).args[0].to(DEVICE)
    scale = demo_controlnet.HINT_PIXELS // autoencoder.FACTOR
    return F.interpolate(found.movedim(-1, 1), scale_factor=scale, mode="nearest-exact")
