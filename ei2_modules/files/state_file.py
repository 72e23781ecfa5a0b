"""Files that stopped work goes on from: tensors, and a header of plain values that tells whose they are."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import WeightsError
from . import safetensors_file


@dataclass(frozen=True)
class StateFile:
    """One kind of them."""

    name: str  # of the header among a file's metadata
    format: int
    work: str  # as in "a tuning"
    again: str  # what else can be done, as in "Tune anew"

    def save(self, path: Path, tensors: dict[str, Tensor], header: dict) -> None:
        """Whole or not at all. header: for JSON. Raises EI2Error."""
        safetensors_file.save(path, tensors, {self.name: json.dumps({"format": self.format} | header)})

    def read(self, path: Path) -> dict:
        """The header, without reading the tensors. Raises WeightsError."""
        return self._header(path, safetensors_file.metadata(path))

    def load(self, path: Path) -> tuple[dict[str, Tensor], dict]:
        """(tensors, header). Raises WeightsError for a file that is damaged or of another kind."""
        tensors, metadata = safetensors_file.load(path)
        return tensors, self._header(path, metadata)

    @contextlib.contextmanager
    def refused_when_damaged(self, path: Path) -> Iterator[None]:
        """Within it, what a file lacks or holds in another shape is a WeightsError."""
        try:
            yield
        except (WeightsError, torch.cuda.OutOfMemoryError):  # the file is not to blame
            raise
        except (KeyError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise WeightsError(
                f"{Path(path).name} is damaged and cannot be gone on from ({error}). Delete it. {self.again}."
            ) from error

    def _header(self, path: Path, metadata: dict[str, str]) -> dict:
        name = Path(path).name
        if self.name not in metadata:
            raise WeightsError(
                f"{name} holds no state of {self.work}: it is another kind of file. Take it out of that folder."
            )
        with self.refused_when_damaged(path):
            metadata[safetensors_file.CHECKSUM]  # without one nothing is sure
            header = json.loads(metadata[self.name])
            if header["format"] != self.format:
                raise WeightsError(
                    f"{name} is a state of format {header['format']}; this version goes on from {self.format}. "
                    f"{self.again}, or use the version of the pack that wrote it."
                )
            return header
