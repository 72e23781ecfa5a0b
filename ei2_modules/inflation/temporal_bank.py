"""From a described image UNet to the temporal modules it needs (paper section 4.1)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..attention.temporal import TEMPORAL_MODULES, Linear, TemporalAttention, folded_state, initialise
from ..config import InflateOptions
from .unet_spec import UNetSpec


class TemporalBank(nn.Module):
    """One temporal module per transformer block. It lives beside the UNet, never in its state dict."""

    def __init__(self, spec: UNetSpec, kind: str, make_linear: Callable = Linear, dtype: torch.dtype | None = None):
        super().__init__()
        blocks = spec.blocks if TEMPORAL_MODULES[kind] else ()
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
