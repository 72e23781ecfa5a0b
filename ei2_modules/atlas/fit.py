"""The refinement of a start by Adam: maps, pictures and alpha together, some consecutive frames a step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..motion.filters import blurred, widened
from ..motion.flow import Flow
from . import losses, spline
from .adam import Rows
from .atlas import Atlas, Layer, visible
from .maps import Maps, half, pixels, to_sampling
from .options import MOTIONS, FitOptions, Rates, Weights
from .pyramid import pyramid, summed
from .start import Start, splatted
from .texture import SEEN, sample, sample_picture

LATTICE = (8, 12)  # points, rows and columns, where rigidity is asked for
CERTAIN = 0.8  # alpha of a start from which on it is held
TIGHT = 1000.0  # weight of the trimap of masks that are trusted


@dataclass(frozen=True)
class Seen:
    """What a step renders of m frames; lists are of layers."""

    frames: Tensor  # (m, 3, h, w)
    maps: list[Maps]
    textures: list[Tensor]
    logits: list[Tensor]  # (m, 1, h, w), of all layers but the last
    alphas: list[Tensor]
    parts: list[Tensor]  # how much of each layer is seen
    gains: Tensor | None


class Fit:
    """An atlas that is being fitted. Parameters and what Adam remembers lie on `device`, the clip stays where it is."""

    def __init__(self, frames: Tensor, masks: tuple[Tensor, ...], flow: Flow, begun: Start, options: FitOptions,
                 device: torch.device | str = "cpu"):  # fmt: skip
        self.clip, self.flow, self.begun, self.options, self.device = frames, flow, begun, options, device
        self.size, self.weights, self.done = tuple(frames.shape[-2:]), Weights(), 0
        self.steps = options.steps_for(len(frames))
        self.generator = torch.Generator().manual_seed(options.seed)
        self.drawn, self.moving = self.generator.get_state(), False  # as they are between steps
        self.rows = {name: Rows(value.to(device), rate) for name, value, rate in self._parameters(Rates())}
        self.trimaps = [self._trimap(mask, alpha) for mask, alpha in zip(masks, begun.alphas, strict=True)]
        self.anchors = [self._anchor(k) for k in range(len(begun.maps))]

    def _parameters(self, rates: Rates):
        """(name, first value, rate) of everything that is fitted."""
        begun = self.begun
        for k, maps in enumerate(begun.maps):
            yield f"affine {k}", maps.affine.clone(), rates.affine
            if maps.offsets is not None:
                yield f"offsets {k}", maps.offsets.clone(), rates.offsets
            yield f"texture {k}", torch.logit(begun.textures[k].clamp(0.02, 0.98))[None], rates.texture
        for k, alpha in enumerate(begun.alphas):
            levels = [pyramid(torch.logit(a[None])) for a in alpha]
            for i, level in enumerate(zip(*levels, strict=True)):
                yield f"alpha {k} {i}", torch.cat(level), rates.alpha
        if begun.gains is not None:
            yield "gains", begun.gains.clone(), rates.gains

    def _trimap(self, mask: Tensor, alpha: Tensor) -> Tensor:
        """(n, 2, h, w) bool: where a layer certainly is, and where it certainly is not."""
        longer, tight = max(self.size), self.begun.tight
        reach = max(1, longer // 64) if tight else max(2, longer // 32)
        core, inward = (mask, reach) if tight else ((alpha > CERTAIN).float(), max(1, longer // 128))
        frames = zip(core.split(1), mask.split(1), strict=True)
        return torch.cat([torch.cat([widened(1 - c, inward) < 0.5, widened(m, reach) < 0.5], dim=1) for c, m in frames])

    def _anchor(self, k: int) -> tuple[Tensor, Tensor]:
        """(start, weight) of the loss of that name."""
        cover = blurred(self.begun.covers[k][None], 3)[0] * self.options.density**2
        return self.begun.textures[k].to(self.device), torch.exp(-cover / 0.5).to(self.device)

    def run(self, after_step: Callable[["Fit"], None] = lambda fit: None) -> Atlas:
        """Take the steps that are left and give what came of them. Call it with gradients enabled."""
        while self.done < self.steps:
            self.step()
            after_step(self)
        return self.atlas()

    def step(self) -> float:
        """One step of Adam; returns the loss."""
        window = min(self.options.window, len(self.clip))
        first = int(torch.randint(1 - window // 2, len(self.clip) - window // 2, (), generator=self.generator))
        first = min(max(first, 0), len(self.clip) - window)
        frames = slice(first, first + window)
        leaves = {name: rows.leaf(self._of(name, frames)) for name, rows in self.rows.items()}
        loss = self.loss(leaves, frames)
        found = torch.autograd.grad(loss, list(leaves.values()))
        scale, self.moving = 0.1 + 0.45 * (1 + math.cos(math.pi * self.done / self.steps)), True
        for (name, rows), grad in zip(self.rows.items(), found, strict=True):
            rows.step(self._of(name, frames), grad, scale)
        self.done += 1
        self.drawn, self.moving = self.generator.get_state(), False
        return loss.item()

    @staticmethod
    def _of(name: str, frames: slice) -> slice:
        return slice(0, 1) if name.startswith("texture") else frames

    def look(self, leaves: dict[str, Tensor], frames: slice) -> Seen:
        """Render frames from parameters, `leaves` being their rows."""
        layers = range(len(self.begun.maps))
        maps = [Maps(leaves[f"affine {k}"], leaves.get(f"offsets {k}")) for k in layers]
        textures = [torch.sigmoid(leaves[f"texture {k}"])[0] for k in layers]
        logits = [summed(_named(leaves, f"alpha {k}"), self.size) for k in layers[:-1]]
        alphas = [self._alpha(logit, k, frames) for k, logit in enumerate(logits)]
        parts = visible([*alphas, torch.ones(len(maps[0]), 1, *self.size, device=self.device)])
        places = zip(textures, maps, self.begun.boxes, strict=True)
        layered = [sample(texture, m.dense(self.size), box) for texture, m, box in places]
        rendered = sum(part * colour for part, colour in zip(parts, layered, strict=True))
        gains = leaves.get("gains")
        if gains is not None:
            rendered = rendered * spline.surface(gains, self.size).exp()
        return Seen(rendered, maps, textures, logits, alphas, parts, gains)

    def _alpha(self, logit: Tensor, k: int, frames: slice) -> Tensor:
        """Within the trimap of masks that are trusted; anywhere for others."""
        if not self.begun.tight:
            return torch.sigmoid(logit)
        inside, outside = self.trimaps[k][frames].to(self.device).float().split(1, dim=1)
        most = F.avg_pool2d(F.pad(1 - outside, (1,) * 4, mode="replicate"), 3, 1)
        return inside + (most - inside).clamp(min=0) * torch.sigmoid(logit)

    def loss(self, leaves: dict[str, Tensor], frames: slice) -> Tensor:
        """The sum that a step makes smaller."""
        seen, weights, clip = self.look(leaves, frames), self.weights, self._on_device(self.clip, frames)
        total = weights.reconstruction * losses.reconstruction(seen.frames, clip)
        total = total + weights.gradients * losses.gradients(seen.frames, clip)
        for k, (logit, alpha) in enumerate(zip(seen.logits, seen.alphas, strict=True)):
            inside, outside = self._on_device(self.trimaps[k], frames).float().split(1, dim=1)
            trust = TIGHT if self.begun.tight else weights.trimap
            total = total + trust * losses.trimap(logit, inside, outside)
            total = total + weights.area * losses.area(alpha) + weights.variation * losses.variation(alpha)
        for texture, (start, weight) in zip(seen.textures, self.anchors, strict=True):
            total = total + weights.anchor * losses.anchor(texture, start, weight, clip[:, 0].numel())
        rigidity = MOTIONS[self.options.motion].rigidity
        for maps in seen.maps:
            total = total + rigidity * losses.rigidity(maps.jacobian(self._lattice(len(maps)), self.size))
            for values in (maps.affine, maps.offsets):
                if values is not None:
                    total = total + weights.temporal * losses.temporal(values * half(self.size))
        if seen.gains is not None:
            total = total + weights.gains * losses.gains(seen.gains - self.begun.gains[frames].to(self.device))
        return total + self._flow_losses(seen, frames)

    def _flow_losses(self, seen: Seen, frames: slice) -> Tensor:
        """Between the step's neighbours, both ways, at random points."""
        count = frames.stop - frames.start - 1
        pairs = slice(frames.start, frames.stop - 1)
        early, late = list(range(count)), list(range(1, count + 1))
        there = self._points(self.flow.forward, self.flow.forward_agrees, pairs)
        back = self._points(self.flow.backward, self.flow.backward_agrees, pairs)
        points, ends, agrees = (torch.cat(both) for both in zip(there, back, strict=True))
        here, other = early + late, late + early
        total = 0.0
        for maps, part in zip(seen.maps, seen.parts, strict=True):
            gap = (maps[other].at(ends, self.size) - maps[here].at(points, self.size)) * half(self.size)
            total = total + self.weights.flow * losses.flow(gap, self._value(part[here], points), agrees)
        for alpha in seen.alphas:
            ends_alpha = self._value(alpha[other], ends)
            change = losses.alpha_flow(self._value(alpha[here], points), ends_alpha, agrees)
            total = total + self.weights.alpha_flow * change
        return total

    def _points(self, flow: Tensor, agrees: Tensor, pairs: slice) -> tuple[Tensor, Tensor, Tensor]:
        """Random pixels of each pair's first frame (m, p, 2), where they go, and whether the flow agrees (m, p)."""
        h, w = self.size
        index = torch.randint(0, h * w, (pairs.stop - pairs.start, self.options.points), generator=self.generator)
        moved = flow[pairs].flatten(2).gather(2, index[:, None].expand(-1, 2, -1)).transpose(1, 2) / half(self.size)
        points = pixels(self.size, flow).flatten(0, 1)[index]
        agrees = agrees[pairs].flatten(1).gather(1, index).float()
        return points.to(self.device), (points + moved).to(self.device), agrees.to(self.device)

    def _value(self, picture: Tensor, points: Tensor) -> Tensor:
        """(m, 1, h, w) at points (m, p, 2) -> (m, p)."""
        return sample_picture(picture, to_sampling(points, self.size)[:, None])[:, 0, 0]

    def _lattice(self, count: int) -> Tensor:
        inner = pixels(LATTICE, self.anchors[0][0]) * max(LATTICE) / torch.tensor(LATTICE[::-1], device=self.device)
        right, down = self.size[1] / max(self.size), self.size[0] / max(self.size)
        return (inner * inner.new_tensor([right, down])).flatten(0, 1).expand(count, -1, -1)

    def _on_device(self, clip: Tensor, frames: slice) -> Tensor:
        return clip[frames].to(self.device)

    @torch.no_grad()
    def peek(self, t: int) -> tuple[Tensor, Tensor, Tensor]:
        """Frame t of the clip, what the fit makes of it, and the alpha of its first layer, (3, h, w) each."""
        frame = slice(t, t + 1)
        seen = self.look({name: rows.value[self._of(name, frame)] for name, rows in self.rows.items()}, frame)
        alpha = seen.parts[0].expand(-1, 3, -1, -1)
        return self.clip[t], seen.frames[0].clamp(0, 1).cpu(), alpha[0].cpu()

    @torch.no_grad()
    def atlas(self) -> Atlas:
        """What the fit has come to."""
        values, layers = {name: rows.value for name, rows in self.rows.items()}, range(len(self.begun.maps))
        maps = tuple(Maps(*(_cpu(values.get(f"{part} {k}")) for part in ("affine", "offsets"))) for k in layers)
        alphas = tuple(torch.cat([self._baked(values, k, t) for t in range(len(self.clip))]) for k in layers[:-1])
        _, covers = splatted(self.clip, maps, tuple(a.float() / 255 for a in alphas), self.begun.boxes)
        observed = (blurred(cover[None], 3)[0] * self.options.density**2 > SEEN for cover in covers)
        textures = (torch.sigmoid(values[f"texture {k}"])[0].cpu() for k in layers)
        parts = zip(maps, self.begun.boxes, textures, observed, strict=True)
        return Atlas(self.size, tuple(Layer(*part) for part in parts), alphas, _cpu(values.get("gains")))

    def _baked(self, values: dict[str, Tensor], k: int, t: int) -> Tensor:
        """(1, 1, h, w) uint8 of one frame's alpha."""
        frame = slice(t, t + 1)
        logit = summed(tuple(level[frame] for level in _named(values, f"alpha {k}")), self.size)
        return (self._alpha(logit, k, frame) * 255).round().byte().cpu()


def _cpu(value: Tensor | None) -> Tensor | None:
    """A copy: the fit may go on."""
    return None if value is None else value.detach().to("cpu", copy=True)


def _named(leaves: dict[str, Tensor], start: str) -> tuple[Tensor, ...]:
    """The levels of one parameter, in order."""
    found = []
    while (name := f"{start} {len(found)}") in leaves:
        found.append(leaves[name])
    return tuple(found)
