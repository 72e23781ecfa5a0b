"""One-shot tuning on one clip (paper section 5; details the paper leaves out follow Tune-A-Video).

The loop knows nothing of progress bars, previews, files or ComfyUI: `Tuning.steps` is a generator, and the caller
does those between steps. Stopping it at any time leaves the weights of the last whole step, and `state` holds all
that is needed to go on from there as if nothing had happened.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import TuningOptions
from ..diffusion.objective import add_noise, diffusion_loss
from ..errors import DivergedError, UnmovedError
from .own_copy import own_copy
from .trainables import Trainables


@dataclass(frozen=True)
class Step:
    """What one optimiser step did."""

    number: int  # counted from 1
    loss: float
    grad_norm: float  # before clipping
    unmoved: tuple[str, ...] = ()  # query projections that the first step left as they were


class Tuning:
    """A tuning between two steps: what is trained, the optimiser, the random numbers, the losses so far.

    trainables change in place. loss_scaling: for fp16, where small gradients would vanish.
    """

    def __init__(self, trainables: Trainables, options: TuningOptions, loss_scaling: bool = False):
        device = next(trainables.parameters()).device
        self.trainables, self.options, self.losses = trainables, options, []
        self.optimiser = make_optimiser(trainables, options)
        self.scaler = torch.amp.GradScaler(device.type, enabled=loss_scaling)
        self.generator = torch.Generator().manual_seed(options.seed)
        self._moved = False  # whether a step has been seen to change what is trained

    @property
    def done(self) -> int:
        """Whole steps."""
        return len(self.losses)

    def steps(
        self, denoise: Callable[[Tensor, Tensor, range], Tensor], clean: Tensor, sigma_table: Tensor, prediction: str
    ) -> Iterator[Step]:
        """Yield after every step until `options.steps` are done.

        denoise(x, sigma, frames): differentiable; x (n, c, h, w) in VE units, sigma (n,), frames of the clip -> x0.
        clean: (n, c, h, w) latents, scaled as the model takes them. sigma_table: (1000,). Of a clip longer than
        `options.window` each step sees another run of so many frames.
        Raises DivergedError before a loss or gradient that is not finite can touch the weights, and UnmovedError when
        a first step did not touch them.
        """
        while self.done < self.options.steps:
            frames, noise, sigma = draw(clean, sigma_table, self.generator, self.options.window)
            window = clean[frames.start : frames.stop]
            x = add_noise(window, noise, sigma)
            loss = diffusion_loss(prediction, x, denoise(x, sigma.expand(len(x)), frames), window, noise, sigma)
            yield self._step(loss)

    def _step(self, loss: Tensor) -> Step:
        number, optimiser, scaler = self.done + 1, self.optimiser, self.scaler
        if not torch.isfinite(loss):
            raise DivergedError(number, "loss")
        scaler.scale(loss).backward()
        grad_norm, scale = self._clip(number), scaler.get_scale()
        before = None if self._moved else self._trained()
        scaler.step(optimiser)
        scaler.update()
        if scaler.is_enabled() and scaler.get_scale() < 1:  # halved at every overflow: it never found a finite step
            raise DivergedError(number, "gradient")
        skipped = scaler.get_scale() < scale
        unmoved = () if before is None or skipped else self._unmoved(before, number)
        optimiser.zero_grad(set_to_none=True)
        self.trainables.power_iteration()
        self.losses.append(loss.item())
        return Step(number, self.losses[-1], grad_norm, unmoved)

    def _trained(self) -> tuple[dict[str, Tensor], list[Tensor]]:
        """What will be saved of the queries, and the temporal modules."""
        return self.trainables.differences(), [own_copy(p) for p in self.trainables.bank.parameters()]

    def _unmoved(self, before: tuple[dict[str, Tensor], list[Tensor]], number: int) -> tuple[str, ...]:
        """Query projections that are as before. Raises UnmovedError when all are, or all of the temporal modules."""
        (queries, bank), (queries_now, bank_now) = before, self._trained()
        still = tuple(path for path, w in queries.items() if torch.equal(w, queries_now[path]))
        if len(still) == len(queries):
            raise UnmovedError(number, f"the {len(queries)} query projections")
        if bank and all(map(torch.equal, bank, bank_now)):
            raise UnmovedError(number, f"the {len(bank)} tensors of the temporal modules")
        self._moved = True
        return still

    def _clip(self, number: int) -> float:
        self.scaler.unscale_(self.optimiser)
        norm = float(nn.utils.clip_grad_norm_(self.trainables.parameters(), self.options.max_grad_norm))
        # With loss scaling an overflow is expected now and then: the scaler skips that step by itself.
        if not self.scaler.is_enabled() and not norm < float("inf"):
            raise DivergedError(number, "gradient")
        return norm

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """(tensors, plain values for JSON): everything that `restore` needs."""
        tensors = {f"trained.{name}": t for name, t in self.trainables.state_dict().items()}
        for i, moments in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{name}": t for name, t in moments.items()}
        tensors["generator"] = self.generator.get_state()
        return tensors, {"losses": self.losses, "scaler": self.scaler.state_dict()}

    def restore(self, tensors: dict[str, Tensor], plain: dict) -> None:
        """Go on from a `state`. Raises KeyError, ValueError or RuntimeError when it is not one of this tuning's."""
        self.trainables.load_state_dict(_below(tensors, "trained."))
        moments: dict[int, dict] = {}
        for name, tensor in _below(tensors, "optimiser.").items():
            index, _, moment = name.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(plain["scaler"])
        self.generator.set_state(tensors["generator"])
        self.losses = [float(loss) for loss in plain["losses"]]


def draw(clean: Tensor, sigma_table: Tensor, generator: torch.Generator, window: int) -> tuple[range, Tensor, Tensor]:
    """A run of at most `window` frames of the clip, independent noise for each of them, one timestep for all.

    Drawn on the CPU for repeatability; a clip that fits the window draws nothing for its place.
    """
    length = min(window, len(clean))
    noise = torch.randn((length, *clean.shape[1:]), generator=generator).to(clean)
    timestep = int(torch.randint(len(sigma_table), (), generator=generator))
    spare = len(clean) - length
    first = int(torch.randint(spare + 1, (), generator=generator)) if spare else 0
    return range(first, first + length), noise, sigma_table[timestep].to(clean)


def make_optimiser(trainables: nn.Module, options: TuningOptions) -> torch.optim.AdamW:
    """AdamW at a constant learning rate over every trained tensor."""
    return torch.optim.AdamW(
        trainables.parameters(),
        lr=options.learning_rate,
        betas=options.betas,
        eps=options.adam_eps,
        weight_decay=options.weight_decay,
    )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
