"""Null-text optimisation (Mokady et al. 2023, by the published rule): an empty text for each step of sampling.

With guidance, sampling leaves the trajectory that inversion took. Here the unconditional embedding of each step is
fitted so that the guided step ends where the trajectory went. VE units as in sampling.py; the loss is the published one
of VP latents. The rule is written for 50 steps; what it says of step i is read here as of the share i / steps.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EI2Error
from .sampling import ddim_step
from .schedule import vp_scale

Denoise = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, sigma a frame, embedding a frame) -> x0
DenoiseCond = Callable[[Tensor, Tensor], Tensor]  # (x, sigma a frame) -> x0 under the caption


@dataclass(frozen=True)
class NullTextOptions:
    """How long and how fast each step's embedding is fitted."""

    inner: int = 10  # at most so many updates a step; vid2vid-zero makes 1
    learning_rate: float = 1e-2  # of Adam at the first step; it falls to half at the last
    per_frame: bool = False  # an embedding for each frame; published is one for all
    stop: float = 1e-5  # a loss below it ends the first step's updates; one 99 times as high the last's of 50

    def __post_init__(self):
        if self.inner < 1:
            raise EI2Error(f"inner steps is {self.inner}: null text needs at least 1 (published are 10).")
        if not self.learning_rate > 0:
            raise EI2Error(f"learning rate is {self.learning_rate}: it must be above 0 (published is 1e-2).")
        if not self.stop >= 0:
            raise EI2Error(f"early stop is {self.stop}: it must be 0 (never) or above (published is 1e-5).")


@dataclass(frozen=True, eq=False)
class NullText:
    """The embeddings of the steps done so far, in the order of sampling."""

    embeddings: Tensor  # (k, 1 or n, tokens, d), fp32 at least, CPU
    sigmas: Tensor  # (k,), falling: where each step starts
    cfg: float
    losses: tuple[float, ...]  # mean squared distance that is left to the trajectory after each step, VP latents
    updates: tuple[int, ...]  # that each step took

    def at(self, sigma: Tensor | float) -> Tensor:
        """The embedding (1 or n, tokens, d) of the step whose sigma is nearest."""
        return self.embeddings[int((self.sigmas - torch.as_tensor(sigma).to(self.sigmas)).abs().argmin())]


def fit_null_text(
    denoise: Denoise,
    denoise_cond: DenoiseCond,
    trajectory: Sequence[Tensor],
    sigmas: Tensor,
    empty: Tensor,
    cfg: float,
    options: NullTextOptions = NullTextOptions(),
    done: NullText | None = None,
) -> Iterator[NullText]:
    """Yields what is done after every step, so that a caller can show it, stop and keep it.

    trajectory: latents (n, c, h, w) of the inversion at every one of `sigmas`, (steps + 1,), rising. empty: the
    embedding (1, tokens, d) to start from, on the device to work on. done: an earlier, unfinished result to go on
    from; its steps are only sampled again. denoise must be differentiable in the embedding, outside inference mode.
    Raises EI2Error if these do not fit, or if a loss is not finite.
    """
    steps, n = len(sigmas) - 1, len(trajectory[0])
    falling = sigmas.float().cpu().flip(0)
    empty = empty.to(torch.promote_types(empty.dtype, torch.float32))
    embedding = empty.expand(n if options.per_frame else 1, -1, -1)
    _check(trajectory, falling, embedding, cfg, done)
    x = trajectory[-1].to(empty)
    embeddings, losses, updates = [], [], []
    for i in range(steps):
        step = _Step(denoise, x, falling[i], falling[i + 1], trajectory[-2 - i].to(x), cfg, denoise_cond)
        if done is not None and i < len(done.embeddings):
            embedding, taken = done.embeddings[i].to(embedding), done.updates[i]
        else:
            embedding, taken = _fit(step, embedding, i / steps, options)
        with torch.no_grad():
            x = step.guided(embedding)
            losses.append(float(step.loss(x)))
        if not isfinite(losses[-1]):
            raise EI2Error(
                f"null text stopped at step {i + 1} of {steps} (sigma {float(falling[i]):.2f}): the loss is not "
                "finite. The steps before it are kept. Try a lower learning rate, or a model that computes in bf16 or "
                "fp32 instead of fp16."
            )
        embeddings.append(embedding.cpu())
        updates.append(taken)
        yield NullText(torch.stack(embeddings), falling[: i + 1], cfg, tuple(losses), tuple(updates))


class _Step:
    """One guided step of sampling, and where it should end."""

    def __init__(self, denoise: Denoise, x, sigma, sigma_next, goal, cfg: float, denoise_cond: DenoiseCond):
        self.denoise, self.x, self.goal, self.cfg = denoise, x, goal, cfg
        self.sigma, self.sigma_next, self.per_frame = sigma.to(x), sigma_next.to(x), x.new_ones([len(x)])
        with torch.no_grad():
            self.cond = denoise_cond(x, self.sigma * self.per_frame).to(x)

    def guided(self, embedding: Tensor) -> Tensor:
        uncond = self.denoise(self.x, self.sigma * self.per_frame, embedding.expand(len(self.x), -1, -1)).to(self.x)
        return ddim_step(self.x, uncond + self.cfg * (self.cond - uncond), self.sigma, self.sigma_next)

    def loss(self, x: Tensor) -> Tensor:
        return F.mse_loss(x, self.goal) / vp_scale(self.sigma_next).square()


def _fit(step: _Step, start: Tensor, share: float, options: NullTextOptions) -> tuple[Tensor, int]:
    """Adam from the last step's embedding, with the published rate and end at this share of the steps.

    Gives the updates it took too. The gradient is of the sum over the latents: that of their mean is lost in fp16.
    """
    embedding = start.clone().requires_grad_()
    adam = torch.optim.Adam([embedding], lr=options.learning_rate * (1 - share / 2))
    taken, numbers = 0, step.x.numel()
    while taken < options.inner:
        with torch.enable_grad():
            loss = step.loss(step.guided(embedding))
            (gradient,) = torch.autograd.grad(loss * numbers, embedding)
        embedding.grad = gradient / numbers
        adam.step()
        taken += 1
        if loss.item() < options.stop * (1 + 100 * share):  # of the embedding before this update, as published
            break
    return embedding.detach(), taken


def _check(trajectory: Sequence[Tensor], falling: Tensor, start: Tensor, cfg: float, done: NullText | None) -> None:
    if len(trajectory) != len(falling) or len(falling) < 2:
        raise EI2Error(
            f"null text needs the inversion's latents at every sigma, not {len(trajectory)} for {len(falling)}."
        )
    if not cfg > 1:
        raise EI2Error(
            f"cfg is {cfg:g}: without guidance an empty text has no effect. Use the cfg of the sampling, say 7.5."
        )
    if done is None:
        return
    if done.cfg != cfg:
        raise EI2Error(f"the null text to go on from was made for cfg {done.cfg:g}, not {cfg:g}.")
    if done.embeddings.shape[1:] != start.shape:
        raise EI2Error(
            f"the null text to go on from has embeddings of shape {tuple(done.embeddings.shape[1:])} a step, this one "
            f"{tuple(start.shape)} (frames, tokens, width): use the same choice of one for all frames or one each."
        )
    if not torch.equal(done.sigmas, falling[: len(done.sigmas)]):
        raise EI2Error(f"the null text to go on from has other steps than this inversion's {len(falling) - 1}.")
