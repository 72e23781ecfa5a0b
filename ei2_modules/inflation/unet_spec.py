"""A described image UNet: what inflating must know of it, and what tuned weights are matched against."""

from dataclasses import dataclass


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

    def key_paths(self) -> list[str]:
        """The key projections beside them, which nothing here changes."""
        return [f"{b.path}.{attn}.to_k" for b in self.blocks for attn in ("attn1", "attn2")]

    def query_paths(self) -> list[str]:
        """Modules whose query projection is tuned: attn1.to_q and attn2.to_q of every block (section 5)."""
        return [f"{b.path}.{attn}.to_q" for b in self.blocks for attn in ("attn1", "attn2")]

    def places(self) -> dict[tuple[str, int], int]:
        """Where attention hooks go, from input to output, and the channels there: a place may hold several blocks."""
        return {b.place: b.dim for b in self.blocks}
