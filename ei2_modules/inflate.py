"""From a described image UNet to the temporal modules it needs (paper section 3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import InflateOptions
from .temporal_attention import Linear, TemporalAttention, folded_state, initialise


@dataclass(frozen=True)
class Block:
    """One transformer block: where it sits in the UNet, and its widths."""

    path: str  # "input_blocks.1.1.transformer_blocks.0"
    place: tuple[str, int]  # ("input", 1): the host's key for attention hooks
    dim: int
    heads: int


@dataclass(frozen=True)
class UNetSpec:
    """What the method must know of a UNet, and what tuned weights are matched against."""

    family: str  # the host's name: "SD15", "SDXL", ...
    prediction: str  # "eps" or "v"
    context_dim: int
    channels: int  # of the latent
    blocks: tuple[Block, ...]

    def widths(self) -> list[list]:
        """[path, d, heads] of every block: the shape part of a tuned file's header."""
        return [[b.path, b.dim, b.heads] for b in self.blocks]

    def query_paths(self) -> list[str]:
        """Modules whose query projection is tuned: attn1.to_q and attn2.to_q of every block (section 5)."""
        return [f"{b.path}.{attn}.to_q" for b in self.blocks for attn in ("attn1", "attn2")]


class TemporalBank(nn.Module):
    """One temporal module per transformer block. It lives beside the UNet, never in its state dict."""

    def __init__(self, spec: UNetSpec, kind: str, make_linear: Callable = Linear, dtype: torch.dtype | None = None):
        super().__init__()
        blocks = () if kind == "none" else spec.blocks
        self.paths = [b.path for b in blocks]
        self.blocks = nn.ModuleList(TemporalAttention(b.dim, b.heads, kind, make_linear, dtype) for b in blocks)

    def items(self) -> list[tuple[str, TemporalAttention]]:
        """(path of the block, its module) pairs."""
        return list(zip(self.paths, self.blocks, strict=True))

    def folded(self, stam_init: str) -> dict[str, Tensor]:
        """All tensors, ready for inference, under "path.name"."""
        return {f"{p}.{k}": t for p, m in self.items() for k, t in folded_state(m, stam_init).items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        """Copy tensors named as `folded` names them; every one must be there."""
        for path, module in self.items():
            for name, parameter in module.named_parameters():
                parameter.copy_(tensors[f"{path}.{name}"])


def fresh_bank(spec: UNetSpec, options: InflateOptions) -> TemporalBank:
    """An untuned fp32 bank, the same for the same seed on every machine (drawn on the CPU)."""
    bank = TemporalBank(spec, options.temporal)
    generator = torch.Generator().manual_seed(options.seed)
    for _, module in bank.items():
        initialise(module, options.stam_init, generator)
    return bank
