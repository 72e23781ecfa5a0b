"""The tuned-weight file: one safetensors file per clip, read in full before anything is trusted.

Queries lie under the names by which ComfyUI's own Load LoRA finds weight differences, so that node applies
the query part of the same file. Temporal modules lie under "ei2.temporal.", folded: no spectral norm is
left to compute. The header, JSON under the metadata key "ei2", says what the tensors fit.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from ..config import InflateOptions
from ..errors import WeightsError
from ..files import safetensors_file
from .temporal_bank import TemporalBank
from .unet_spec import Block, UNetSpec

FORMAT = 4
READABLE = (1, 2, 3, 4)  # 1 had no checksum, the fingerprints of 1 and 2 no queries; before 4 no norm was pooled
LATER = {"group_norm"}  # options that files before format 4 have not: their defaults hold
QUERY_PREFIX, QUERY_SUFFIX = "diffusion_model.", ".diff"
TEMPORAL_PREFIX = "ei2.temporal."


@dataclass(frozen=True)
class TunedTensors:
    """queries: module path -> difference to the base weight. temporal: "path.name" -> folded tensor."""

    queries: dict[str, Tensor]
    temporal: dict[str, Tensor]

    def learnt(self) -> bool:
        """Whether any query differs from the base: after a single step of tuning nearly all do."""
        return any(bool(difference.any()) for difference in self.queries.values())


@dataclass(frozen=True)
class Header:
    """What a file says of itself. Everything here is plain JSON."""

    options: dict  # InflateOptions
    family: str
    prediction: str
    widths: list  # [path, d, heads] of every block
    fingerprint: list  # of the base model, see fingerprint.py
    run: dict = field(default_factory=dict)  # frames, size, seed, steps, learning rate, losses, versions
    format: int = FORMAT

    def card(self) -> dict:
        """The part that people read: what was tuned, how, and how it went."""
        return {"family": self.family, "prediction": self.prediction, "options": self.options, **self.run}


@dataclass(frozen=True)
class EI2Weights:
    """A tuned clip: header and tensors, as it travels between nodes."""

    header: Header
    tensors: TunedTensors

    def options(self) -> InflateOptions:
        return InflateOptions(**self.header.options)


def make_header(spec: UNetSpec, options: InflateOptions, fingerprint: list, run: dict) -> Header:
    """The header of a run on this model."""
    return Header(asdict(options), spec.family, spec.prediction, spec.widths(), fingerprint, run)


def save(path: Path, weights: EI2Weights) -> None:
    """Write whole or not at all."""
    tensors = {QUERY_PREFIX + k + QUERY_SUFFIX: t for k, t in weights.tensors.queries.items()}
    tensors |= {TEMPORAL_PREFIX + k: t for k, t in weights.tensors.temporal.items()}
    metadata = {"ei2": json.dumps(asdict(weights.header)), "format": "pt"}
    safetensors_file.save(path, tensors, metadata)


def load(path: Path) -> EI2Weights:
    """Read and check a file; raises WeightsError for anything that is not a whole tuned-weight file."""
    tensors, metadata = safetensors_file.load(path)
    header = _parse_header(Path(path).name, metadata)
    tuned = TunedTensors(
        _strip(tensors, QUERY_PREFIX, QUERY_SUFFIX),
        _strip(tensors, TEMPORAL_PREFIX, ""),
    )
    _check_complete(Path(path).name, header, tuned, len(tensors))
    return EI2Weights(header, tuned)


def _parse_header(name: str, metadata: dict) -> Header:
    if "ei2" not in metadata:
        raise WeightsError(
            f"{name} holds no EI² header: it is another kind of file (a LoRA or a checkpoint?). "
            "Choose a file written by Save EI² Weights."
        )
    try:
        raw = json.loads(metadata["ei2"])
        written = raw["format"]
        if written not in READABLE:
            known = f"{READABLE[0]} to {READABLE[-1]}"
            raise WeightsError(f"{name} has format {written}; this version reads {known}. Update the pack.")
        if written > 1 and safetensors_file.CHECKSUM not in metadata:
            raise KeyError("no checksum")
        header = Header(**raw)
        there = header.options.keys() | (LATER if written < 4 else set())
        if there != asdict(InflateOptions()).keys():
            raise KeyError(f"options {sorted(header.options)}")
        InflateOptions(**header.options)
        if not (header.fingerprint and all(math.isfinite(number) for number in header.fingerprint)):
            raise ValueError("its fingerprint is empty or not finite")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, WeightsError):
            raise
        raise WeightsError(f"{name} has a damaged EI² header ({error}). Save it again.") from error
    return header


def _check_complete(name: str, header: Header, tuned: TunedTensors, total: int) -> None:
    """Names and shapes must be exactly those the header promises, and every number finite."""
    expected = _expected_shapes(name, header)
    found = {f"q {k}": tuple(t.shape) for k, t in tuned.queries.items()}
    found |= {f"t {k}": tuple(t.shape) for k, t in tuned.temporal.items()}
    wrong = sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k))
    if wrong or len(found) != total:
        raise WeightsError(
            f"{name} is not complete: its header promises {len(expected)} tensors, {total} are there and "
            f"{len(wrong)} differ{f', first {wrong[0][2:]}' if wrong else ''}. Save it again."
        )
    for key, tensor in (tuned.queries | tuned.temporal).items():
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise WeightsError(f"{name} holds values that are not finite numbers in {key}. Save it again.")


def _expected_shapes(name: str, header: Header) -> dict[str, tuple]:
    try:
        blocks = tuple(Block(path, ("", 0), dim, heads) for path, dim, heads in header.widths)
        spec = UNetSpec(header.family, header.prediction, 0, 0, blocks)
        with torch.device("meta"):
            bank = TemporalBank(spec, header.options["temporal"])
        temporal = {f"t {p}.{k}": tuple(t.shape) for p, m in bank.items() for k, t in m.named_parameters()}
        dims = {b.path: b.dim for b in blocks}
        queries = {f"q {p}": (dims[p.rsplit(".", 2)[0]],) * 2 for p in spec.query_paths()}
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{name} describes no UNet that can exist ({error}). Save it again.") from error
    return temporal | queries


def _strip(tensors: dict, prefix: str, suffix: str) -> dict:
    return {
        k[len(prefix) : len(k) - len(suffix)]: t
        for k, t in tensors.items()
        if k.startswith(prefix) and k.endswith(suffix)
    }
