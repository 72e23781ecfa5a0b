"""Layered Neural Atlases (Kasten et al. 2021) as published, trained for a number of seconds: what ours is beside.

Networks, losses and weights, sampling, Adam and the pretraining of both mappings are those of the released code. What
is not: boxes stand in for Mask R-CNN's masks; the flow, and where it agrees, are those that our fit gets; pretraining
ends after a share of the seconds, else they would be over before the atlas is trained at all; and faults that spoil a
training are left out: means over nothing, and the gradient's step in portrait clips.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ei2_modules.atlas.maps import Size, half
from ei2_modules.atlas.nla import SIDES, Network, Networks
from ei2_modules.motion.flow import Flow, flow_of

from ..common import report
from .nla_losses import SCALE, Pixels, terms, total

LAYERS = {"foreground": 6, "background": 4, "alpha": 8, "atlas": 8}
FREQUENCIES = {"alpha": 5, "atlas": 10}  # of the positional encoding; the mappings have none
SKIPS = {"atlas": (4, 7)}  # layers that take the encoding again


@dataclass(frozen=True)
class Options:
    batch: int = 10_000  # pixels of a step, with replacement; published
    rate: float = 1e-4  # of Adam; published
    passes: int = 100  # over all frames, of the pretraining; published
    share: float = 0.25  # of the seconds after the flow, at most, for the pretraining
    width: int = 256  # of all layers; published
    seed: int = 0


class Training:
    """Networks on their way. frames (n, 3, h, w) in 0..1, mask (n, 1, h, w)."""

    def __init__(self, frames: Tensor, mask: Tensor, flow: Flow, options: Options):
        self.pixels, self.options = Pixels.of(frames, mask, flow), options
        self.frames, self.size = len(frames), tuple(frames.shape[-2:])
        self.random = torch.Generator().manual_seed(options.seed)
        self.networks = made(options.width, options.seed)
        self.adam = torch.optim.Adam(parameters(self.networks, *LAYERS), options.rate)
        self.before = torch.optim.Adam(parameters(self.networks, "foreground", "background"), options.rate)
        self.pretrained = self.iteration = 0

    @property
    def ready(self) -> bool:
        """Pretrained to the end."""
        return self.pretrained >= self.options.passes * self.frames

    def pretrain(self) -> float:
        """A step of both mappings, over one frame, to 0.8 of x and y. Returns their losses' sum."""
        n = len(self.pixels) // self.frames
        which = torch.randint(n, (self.options.batch,), generator=self.random) + self.pretrained % self.frames * n
        place = self.pixels.place[which]
        mappings = self.networks.foreground, self.networks.background
        loss = sum((SCALE * place[:, :2] - mapping(place)).norm(dim=1).mean() for mapping in mappings)
        self.pretrained += 1
        return _descend(self.before, loss)

    def step(self) -> float:
        """A step of all four. Returns the loss before it."""
        which = torch.randint(len(self.pixels), (self.options.batch,), generator=self.random)
        loss = total(terms(self.networks, self.pixels[which], half(self.size), self.iteration))
        self.iteration += 1
        return _descend(self.adam, loss)


def _descend(adam: torch.optim.Adam, loss: Tensor) -> float:
    adam.zero_grad()
    loss.backward()
    adam.step()
    return loss.item()


def trained(
    frames: Tensor,
    mask: Tensor,
    seconds: float,
    options: Options,
    even_light: bool = False,
    now: Callable[[], float] = report.now,
) -> tuple[Training, float]:
    """(what was reached, the seconds that it took): flow, pretraining and training, as many steps as begin in time."""
    began = now()
    with torch.no_grad():
        flow = flow_of(frames, even_light=even_light)
    training = Training(frames, mask, flow, options)
    start, end = now(), began + seconds
    while not training.ready and now() < start + options.share * (end - start):
        training.pretrain()
    while now() < end:
        training.step()
    return training, now() - began


def made(width: int, seed: int) -> Networks:
    """All four, as PyTorch's linear layers begin."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Networks(**{name: _network(name, width) for name in SIDES})


def _network(name: str, width: int) -> Network:
    inputs, outputs = SIDES[name]
    first, count = 2 * inputs * FREQUENCIES.get(name, 0) or inputs, LAYERS[name]
    layers = []
    for k in range(count):
        taken = first if k == 0 else width + first * (k in SKIPS.get(name, ()))
        layers.append(nn.Linear(taken, outputs if k == count - 1 else width))
    return Network(tuple(layer.weight for layer in layers), tuple(layer.bias for layer in layers), inputs)


def parameters(networks: Networks, *names: str) -> list[Tensor]:
    chosen = [getattr(networks, name) for name in names]
    return [part for network in chosen for part in (*network.weights, *network.biases)]


@torch.no_grad()
def rendered(training: Training) -> tuple[Tensor, Tensor]:
    """(frames (n, 3, h, w) in 0..1, alpha (n, 1, h, w))."""
    frames, alphas, networks = [], [], training.networks
    for t in range(training.frames):
        uv, alpha = networks.frame(training.size, t, training.frames, lambda done: None)
        layers = [networks.picture(own, k, lambda done: None) for k, own in enumerate(uv)]
        frames.append(alpha * layers[0] + (1 - alpha) * layers[1])
        alphas.append(alpha[None])
    return torch.stack(frames), torch.stack(alphas)


@dataclass(frozen=True)
class NeuralMaps:
    """A mapping network, asked as `ei2_modules.atlas.maps.Maps` is: points are pixels from the middle, over half."""

    network: Network
    count: int  # of the clip's frames
    frames: tuple[int, ...] = ()

    def __getitem__(self, frames: list[int]) -> "NeuralMaps":
        return NeuralMaps(self.network, self.count, tuple(frames))

    @torch.no_grad()
    def at(self, points: Tensor, size: Size) -> Tensor:
        """points (n, p, 2) -> (n, p, 2)."""
        return self.network(self._places(points, size).flatten(0, 1)).view(points.shape)

    def jacobian(self, points: Tensor, size: Size) -> Tensor:
        """(n, p, 2, 2) at points (n, p, 2): the last index is the direction in the picture."""
        place = self._places(points, size).flatten(0, 1).requires_grad_()
        uv = self.network(place)
        rows = [torch.autograd.grad(uv[:, k].sum(), place, retain_graph=True)[0][:, :2] for k in range(2)]
        # The ridge is for a network that says the same everywhere, as one does that was hardly trained: its error is
        # then large instead of none.
        return (torch.stack(rows, dim=1) + 1e-6 * torch.eye(2)).view(*points.shape, 2)

    def _places(self, points: Tensor, size: Size) -> Tensor:
        """As the networks know points: from the corner's pixel, and with the time."""
        corner = points.new_tensor([(side - 1) / max(size) - 1 for side in reversed(size)])
        time = points.new_tensor([t / (self.count / 2) - 1 for t in self.frames])
        return torch.cat([points + corner, time[:, None, None].expand(-1, points.shape[1], 1)], dim=2)
