"""Everything one-shot tuning changes: attn1.to_q and attn2.to_q of every block, and the temporal modules.

For SD1.x that is 24,780,800 + 49,574,080 = 74,354,880 numbers (paper section 5). All are fp32 masters.
"""

import torch
from torch import Tensor, nn

from ..attention.temporal import add_spectral_norm, power_iteration
from ..config import InflateOptions
from ..inflation.temporal_bank import TemporalBank, fresh_bank
from ..inflation.unet_spec import UNetSpec
from ..inflation.weights import TunedTensors
from .own_copy import own_copy


class Trainables(nn.Module):
    """The trained tensors and the way back to a file.

    base_queries: the frozen model's own query weights by module path, as loaded.
    start: tuned tensors to go on from; without them the queries start at the base and the temporal
    modules at the random start that `options` describe.
    """

    def __init__(
        self,
        spec: UNetSpec,
        options: InflateOptions,
        base_queries: dict[str, Tensor],
        start: TunedTensors | None = None,
    ):
        super().__init__()
        self.spec, self.options = spec, options
        self.base = {path: own_copy(w, torch.float32) for path, w in base_queries.items()}
        self.query_weights = nn.ParameterList(
            nn.Parameter(w + start.queries[path].to(w) if start else own_copy(w)) for path, w in self.base.items()
        )
        self.bank = self._start_bank(start)

    def _start_bank(self, start: TunedTensors | None) -> TemporalBank:
        bank = fresh_bank(self.spec, self.options)
        if start:
            bank.load(start.temporal)
        for _, module in bank.items():
            add_spectral_norm(module, self.options.stam_init)
        return bank.to(next(iter(self.base.values())).device)

    def queries(self) -> dict[str, nn.Parameter]:
        """Path of a query projection -> its trained weight."""
        return dict(zip(self.base, self.query_weights, strict=True))

    @torch.no_grad()
    def differences(self) -> dict[str, Tensor]:
        """Of the queries to the base: what will be saved."""
        return {path: w - self.base[path] for path, w in self.queries().items()}

    def count(self) -> int:
        """Number of trained numbers."""
        return sum(p.numel() for p in self.parameters())

    @torch.no_grad()
    def power_iteration(self) -> None:
        """Keep the spectral norms true after an optimiser step."""
        for _, module in self.bank.items():
            power_iteration(module)

    @torch.no_grad()
    def export(self) -> TunedTensors:
        """Query differences and folded temporal modules, fp32 on the CPU."""
        queries = {path: difference.cpu() for path, difference in self.differences().items()}
        temporal = {name: t.cpu() for name, t in self.bank.folded(self.options.stam_init).items()}
        return TunedTensors(queries, temporal)
