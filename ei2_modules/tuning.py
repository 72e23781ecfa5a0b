"""One-shot tuning on one clip (paper section 5; details the paper leaves out follow Tune-A-Video).

The loop knows nothing of progress bars, previews, files or ComfyUI: it is a generator, and the caller
does those between steps. Stopping the generator at any time leaves the weights of the last whole step.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import TuningOptions
from .errors import DivergedError
from .objective import add_noise, diffusion_loss
from .trainables import Trainables


@dataclass(frozen=True)
class Step:
    """What one optimiser step did."""

    number: int  # counted from 1
    loss: float
    grad_norm: float  # before clipping


def tune(
    denoise: Callable[[Tensor, Tensor], Tensor],
    clean: Tensor,
    trainables: Trainables,
    sigma_table: Tensor,
    prediction: str,
    options: TuningOptions,
    loss_scaling: bool = False,
) -> Iterator[Step]:
    """Yield after every step; `trainables` change in place.

    denoise(x, sigma): differentiable; x (n, c, h, w) in VE units, sigma (n,) -> x0.
    clean: (n, c, h, w) latents, scaled as the model takes them. sigma_table: (1000,).
    loss_scaling: for fp16, where small gradients would vanish.
    Raises DivergedError before a loss or gradient that is not finite can touch the weights.
    """
    optimiser = make_optimiser(trainables, options)
    scaler = torch.amp.GradScaler(clean.device.type, enabled=loss_scaling)
    generator = torch.Generator().manual_seed(options.seed)
    for number in range(1, options.steps + 1):
        noise, sigma = draw(clean, sigma_table, generator)
        x = add_noise(clean, noise, sigma)
        loss = diffusion_loss(prediction, x, denoise(x, sigma.expand(len(x))), clean, noise, sigma)
        if not torch.isfinite(loss):
            raise DivergedError(number, "loss")
        scaler.scale(loss).backward()
        grad_norm = _clip(trainables, optimiser, scaler, options, number)
        scaler.step(optimiser)
        scaler.update()
        if scaler.is_enabled() and scaler.get_scale() < 1:  # halved at every overflow: it never found a finite step
            raise DivergedError(number, "gradient")
        optimiser.zero_grad(set_to_none=True)
        trainables.power_iteration()
        yield Step(number, loss.item(), grad_norm)


def draw(clean: Tensor, sigma_table: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Independent noise for every frame and one timestep for the whole clip, on the CPU for repeatability."""
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    timestep = int(torch.randint(len(sigma_table), (), generator=generator))
    return noise, sigma_table[timestep].to(clean)


def make_optimiser(trainables: nn.Module, options: TuningOptions) -> torch.optim.AdamW:
    """AdamW at a constant learning rate over every trained tensor."""
    return torch.optim.AdamW(
        trainables.parameters(),
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.adam_eps,
        weight_decay=options.weight_decay,
    )


def _clip(trainables, optimiser, scaler, options, number) -> float:
    scaler.unscale_(optimiser)
    norm = float(nn.utils.clip_grad_norm_(trainables.parameters(), options.max_grad_norm))
    # With loss scaling an overflow is expected now and then: the scaler skips that step by itself.
    if not scaler.is_enabled() and not norm < float("inf"):
        raise DivergedError(number, "gradient")
    return norm
