"""STAM, the shift-restricted temporal attention (paper section 4.3, eq. 6 to 9), and the modules it is compared with.

For the n frames at one place of the map, z is n x d:

    IC(z)   = z - mean over frames of z                                   (6)
    A(z)    = softmax(Q Kᵀ / sqrt(d_head)) V, with Q, K, V from IC(z)     (3)
    V, L    : W_v / sigma_max(W_v) and W_L / sigma_max(W_L)               (8)
    STAM(z) = z + L A(z) + b                                              (9)

Eq. 7 is the paper's bound on how far the covariance may shift: (8) is what makes it hold. The other kinds change only
what stands in for IC and drop (8): they are the paper's Figure 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .centering import SpectralNorm, instance_centering, instance_norm, layer_norm, normaliser, spectral_norm
from .core import scaled_dot_product

PUBLISHED = "Tune-A-Video"  # the start that its released code has
CLAMPED = ("clamp", PUBLISHED)  # starts with W_L = 0, whose norm is 0: eq. 8 divides by max(1, sigma) then


class Linear(nn.Linear):
    """Computes in its input's type; the weight keeps its own (fp32 masters while tuning)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Affine(nn.Module):
    """A learned scale and shift per channel."""

    def __init__(self, dim: int, dtype: torch.dtype | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(dim, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.to(x) + self.bias.to(x)  # .to(x): the host may keep it on another device


@dataclass(frozen=True)
class TemporalModule:
    """One kind: what is done to z before attention, and whether eq. 8 holds."""

    norm: Callable[[Tensor], Tensor]
    affine: bool = False
    spectral: bool = False


TEMPORAL_MODULES = {
    "STAM": TemporalModule(instance_centering, spectral=True),
    "layer norm": TemporalModule(layer_norm, affine=True),
    "layer norm without scale": TemporalModule(layer_norm),
    "instance norm": TemporalModule(instance_norm, affine=True),
    "instance norm without scale": TemporalModule(instance_norm),
    "IC without SN": TemporalModule(instance_centering),
    "none": None,  # the block stays as it is
}


class TemporalAttention(nn.Module):
    """z + Linear(Attention(norm(z))) over frames, at every place of the map."""

    def __init__(self, dim: int, heads: int, kind: str, make_linear=Linear, dtype: torch.dtype | None = None):
        super().__init__()
        self.heads, self.kind = heads, TEMPORAL_MODULES[kind]
        self.to_q = make_linear(dim, dim, bias=False, dtype=dtype)
        self.to_k = make_linear(dim, dim, bias=False, dtype=dtype)
        self.to_v = make_linear(dim, dim, bias=False, dtype=dtype)
        self.to_out = make_linear(dim, dim, bias=True, dtype=dtype)
        self.affine = Affine(dim, dtype) if self.kind.affine else nn.Identity()

    def forward(self, x: Tensor, frames: int, taking: Callable | None = None) -> Tensor:
        """((b n), l, d) -> the same shape, n = frames; sequences of different clips never meet.

        taking: (queries, keys), ((b l), n, d) -> those to attend by, where an edit takes them from its source.
        """
        z = rearrange(x, "(b n) l d -> (b l) n d", n=frames)
        c = self.affine(self.kind.norm(z)).contiguous()  # or each projection copies it, or its weight for every place
        q, k = self.to_q(c), self.to_k(c)
        q, k = (q, k) if taking is None else taking(q, k)
        out = scaled_dot_product(q, k, self.to_v(c), self.heads)
        z = z + self.to_out(out)
        return rearrange(z, "(b l) n d -> (b n) l d", l=x.shape[1])


@torch.no_grad()
def initialise(module: TemporalAttention, stam_init: str, generator: torch.Generator) -> None:
    """Random start of the four matrices as PyTorch's default, then the start named.

    STAM: "random" leaves it there (the paper read literally); "zero-query" sets W_q = 0, so attention is
    uniform over centred values and the output exactly 0; "clamp" sets W_L = 0 and divides by
    max(1, sigma). Without spectral normalisation W_L = 0 with any start, as Tune-A-Video. b = 0 but for
    "Tune-A-Video": that is "clamp" with b at PyTorch's default too, which its released code does not set to 0.
    """
    bound = module.to_q.weight.shape[1] ** -0.5  # kaiming_uniform with a = sqrt(5), as nn.Linear
    for linear in (module.to_q, module.to_k, module.to_v, module.to_out):
        linear.weight.uniform_(-bound, bound, generator=generator)
    module.to_out.bias.zero_()
    if stam_init == PUBLISHED:
        module.to_out.bias.uniform_(-bound, bound, generator=generator)
    if not module.kind.spectral or stam_init in CLAMPED:
        module.to_out.weight.zero_()
    elif stam_init == "zero-query":
        module.to_q.weight.zero_()


def normalised_linears(module: TemporalAttention) -> list[nn.Linear]:
    """The layers that eq. 8 divides by their spectral norm: value and output, not query and key."""
    return [module.to_v, module.to_out] if module.kind.spectral else []


def add_spectral_norm(module: TemporalAttention, stam_init: str) -> None:
    """Keep eq. 8 true while tuning: see `centering.SpectralNorm`."""
    for linear in normalised_linears(module):
        norm = SpectralNorm(linear.weight, clamp=stam_init in CLAMPED)
        parametrize.register_parametrization(linear, "weight", norm)


def power_iteration(module: TemporalAttention) -> None:
    """Follow the weights after an optimiser step."""
    for linear in normalised_linears(module):
        linear.parametrizations.weight[0].power_iteration(linear.parametrizations.weight.original)


@torch.no_grad()
def folded_state(module: TemporalAttention, stam_init: str) -> dict[str, Tensor]:
    """The module's tensors in fp32 with eq. 8 applied by the exact norm: plain attention from then on.

    Folding twice changes nothing: a folded matrix has sigma 1 (or below, for "clamp").
    """
    raw = {name.replace(".parametrizations.weight.original", ".weight"): p for name, p in module.named_parameters()}
    state = {name: p.detach().float().clone() for name, p in raw.items()}
    for name in ("to_v.weight", "to_out.weight") if module.kind.spectral else ():
        state[name] /= normaliser(spectral_norm(state[name]), clamp=stam_init in CLAMPED)
    return state
