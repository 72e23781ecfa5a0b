"""The aggregation network of StableVideo (section 3.4): two convolutions with a skip, trained on one edit.

As released it cannot run, for it asks for gradients where none are kept. Here it begins as the identity, and its loss
counts what a key frame shows of the layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .texture import Box, sample

WIDTH, EPOCHS, RATE, MOMENTUM = 64, 500, 1e-3, 0.9  # as published
AfterStep = Callable[[int, int, float], None]  # (epochs done, of, loss)


@dataclass(frozen=True)
class View:
    """A key frame that the picture shall give again."""

    uv: Tensor  # (1, h, w, 2)
    edited: Tensor  # (1, 3, h, w)
    seen: Tensor  # (1, 1, h, w)
    light: Tensor | float

    def to(self, device: torch.device | str) -> "View":
        light = self.light if isinstance(self.light, float) else self.light.to(device)
        return View(self.uv.to(device), self.edited.to(device), self.seen.to(device), light)


class AggregationNetwork(nn.Module):
    """(1, 3, rows, columns) -> the same."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, WIDTH, 3, padding=1, bias=False)
        self.second = nn.ConvTranspose2d(WIDTH, 3, 3, padding=1, bias=False)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.relu(self.first(x)))


def loss(picture: Tensor, box: Box, views: list[View]) -> Tensor:
    """L1 between the edited key frames and those drawn from the picture (3, rows, columns), summed over them."""
    drawn = [(sample(picture, view.uv, box) * view.light).clamp(0, 1) for view in views]
    return sum(((d - v.edited).abs() * v.seen).mean() for d, v in zip(drawn, views, strict=True))


def refined(
    picture: Tensor,
    box: Box,
    views: list[View],
    device: torch.device | str = "cpu",
    after_step: AfterStep | None = None,
    epochs: int = EPOCHS,
) -> Tensor:
    """The picture (3, rows, columns) after the network, trained from a fixed seed. Runs in inference mode too."""
    with torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = AggregationNetwork().to(device)
        start, views = picture.clone().to(device), [_owned(view).to(device) for view in views]
        weights = list(network.parameters())
        moving = [torch.zeros_like(weight) for weight in weights]
        for epoch in range(epochs):
            found = loss(network(start[None])[0], box, views)
            for weight, average, slope in zip(weights, moving, torch.autograd.grad(found, weights), strict=True):
                average.mul_(MOMENTUM).add_(slope)  # torch.optim takes seconds to import
                weight.data.sub_(RATE * average)
            if after_step:
                after_step(epoch + 1, epochs, found.item())
        return network(start[None])[0].detach().clamp(0, 1).to(picture.device)


def _owned(view: View) -> View:
    """Tensors born in inference mode cannot be saved for a backward pass."""
    light = view.light if isinstance(view.light, float) else view.light.clone()
    return View(view.uv.clone(), view.edited.clone(), view.seen.clone(), light)
