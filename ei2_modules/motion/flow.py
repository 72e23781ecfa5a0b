"""The motion of a clip: flow both ways between neighbours, where it agrees, and how it is drawn."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import EI2Error
from .optical_flow import estimate_flow, followed

PAIRS_AT_ONCE = 4  # bounds the memory of a long clip
ENOUGH = 0.4  # share of flow that agrees, below which atlases were poor
Estimate = Callable[[Tensor, Tensor], Tensor]  # (first, second), both (n, 3, h, w) in 0..1 -> (n, 2, h, w) in px


@dataclass(frozen=True)
class Flow:
    """Between each frame and the next, n - 1 pairs of n frames. Pixels, dx then dy."""

    forward: Tensor  # (n - 1, 2, h, w): where the pixels of frame i are in frame i + 1
    backward: Tensor  # (n - 1, 2, h, w): where those of frame i + 1 are in frame i
    forward_agrees: Tensor  # (n - 1, 1, h, w) bool: there and back ends where it began
    backward_agrees: Tensor
    method: str = ""

    @property
    def frames(self) -> int:
        return len(self.forward) + 1

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        return tuple(self.forward.shape[-2:])

    def share(self) -> float:
        """Of all pixels, those whose flow agrees both ways, 0..1."""
        return (self.forward_agrees.float().mean() + self.backward_agrees.float().mean()).item() / 2

    def report(self) -> str:
        """In words."""
        length = self.forward.square().sum(1).sqrt().flatten()
        some = length[:: max(1, len(length) // 100_000)]
        (h, w), agrees = self.size, 100 * self.share()
        lines = [
            f"{self.frames - 1} pairs of {w}x{h} by {self.method}",
            f"motion: {some.mean().item():.2f} px a frame, 95th percentile {some.quantile(0.95).item():.2f} px",
            f"agrees both ways: {agrees:.0f} % of all pixels",
        ]
        if agrees < 100 * ENOUGH:
            lines.append("note: that is little. Take more frames of the same time, a larger size, or RAFT's weights.")
        return "\n".join(lines)


def flow_of(
    frames: Tensor,
    estimate: Estimate = estimate_flow,
    method: str = "Lucas-Kanade",
    even_light: bool = False,
    on_pair: Callable[[int, Tensor], None] = lambda done, flow: None,
) -> Flow:
    """The flow of a clip (n, 3, h, w) in 0..1, some pairs at a time.

    even_light: take every pixel by the brightness around it, for light that changes, which flow takes for motion.
    on_pair(pairs done, forward flow of them) is called in between. Raises EI2Error for less than two frames and for an
    estimate that is not finite.
    """
    if len(frames) < 2:
        raise EI2Error(f"{len(frames)} frame: motion is between frames, so give 2 at least.")
    parts = []
    for i in range(0, len(frames) - 1, PAIRS_AT_ONCE):
        some = frames[i : i + PAIRS_AT_ONCE + 1]
        some = evenly_lit(some) if even_light else some
        first, second = some[:-1], some[1:]
        there, back = estimate(first, second), estimate(second, first)
        bad = ~torch.cat((there, back), 1).isfinite().flatten(1).all(1)
        if bad.any():
            pair = i + int(bad.int().argmax())
            raise EI2Error(
                f"The flow between frames {pair} and {pair + 1}, counted from 0, is not finite ({method}). "
                "Choose another method."
            )
        parts.append((there, back, followed(there, back), followed(back, there)))
        on_pair(i + len(first), there)
    return Flow(*(torch.cat(part) for part in zip(*parts, strict=True)), method)


def evenly_lit(frames: Tensor) -> Tensor:
    """Frames (n, 3, h, w) over the mean of a wide neighbourhood: light that changes smoothly is gone from them."""
    reach = max(frames.shape[-2:]) // 16
    side = 2 * reach + 1
    padded = F.pad(frames.mean(1, keepdim=True), (reach,) * 4, mode="replicate")
    return (frames / (F.avg_pool2d(padded, side, 1) + 0.02) / 2).clamp(0, 1)


def checked(flow: Flow, frames: int, size: tuple[int, int]) -> Flow:
    """The same flow; raises EI2Error where it belongs to a clip of another shape, or is not finite."""
    if (flow.frames, flow.size) != (frames, tuple(size)):
        (h, w), (own_h, own_w) = size, flow.size
        raise EI2Error(
            f"The flow is of {flow.frames} frames of {own_w}x{own_h}, the images are {frames} frames of {w}x{h}. "
            "Compute it from the same images."
        )
    if not (flow.forward.isfinite().all() and flow.backward.isfinite().all()):
        raise EI2Error("The flow holds values that are not finite. Compute it anew.")
    return flow


def colours(flow: Tensor, longest: float | None = None) -> Tensor:
    """A picture of (n, 2, h, w): hue is the direction, saturation the length. Returns (n, 3, h, w) in 0..1.

    longest: pixels that are drawn in full colour, by default the 99th percentile. White is no motion, right is red,
    down is yellow-green, left is cyan, up is violet.
    """
    length = flow.square().sum(1).sqrt()  # (n, h, w)
    if longest is None:
        longest = length.flatten()[:: max(1, length.numel() // 100_000)].quantile(0.99).item()
    strength = (length / max(longest, 1e-6)).clamp(0, 1)[:, None]
    turn = torch.atan2(flow[:, 1], flow[:, 0])[:, None] / (2 * torch.pi)  # 0 right, 1/4 down
    thirds = turn.new_tensor([0.0, 1 / 3, 2 / 3]).view(1, 3, 1, 1)
    distance = ((turn - thirds + 0.5).remainder(1) - 0.5).abs()  # of the hue from red, green, blue
    hue = (2 - 6 * distance).clamp(0, 1)
    return 1 - strength * (1 - hue)
