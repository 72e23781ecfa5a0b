"""Safetensors files with a checksum, written whole or not at all: to a neighbour first, then renamed over."""

import errno
import os
import re
import time
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import EI2Error, WeightsError

CHECKSUM = "ei2_checksum"  # among the metadata: of everything else in the file
STALE = 3600  # seconds after which what a killed process has left is removed


def save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Until the last moment an older file stays as it is. Raises EI2Error, and leaves no half file behind."""
    tensors = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        _remove_stale(path)
        save_file(tensors, partial, metadata | {CHECKSUM: checksum(tensors, metadata)})
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, SafetensorError) as error:
        raise EI2Error(f"{path} could not be written: {error}. {_advice(error)}") from error
    finally:
        _unlink(partial)


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata). Raises WeightsError for what is no whole safetensors file, or has changed since `save`.

    A file without a checksum is given as it is: whether that may be is for the caller to say.
    """
    try:
        with safe_open(path, framework="pt") as file:
            tensors, found = {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    rest = {name: text for name, text in found.items() if name != CHECKSUM}
    if CHECKSUM in found and found[CHECKSUM] != checksum(tensors, rest):
        raise WeightsError(
            f"{Path(path).name} has changed since it was written: it is damaged. Use another copy of it."
        )
    return tensors, found


def metadata(path: Path) -> dict[str, str]:
    """Of a file, without reading its tensors or checking them."""
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error


def checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """CRC-32 of names, types, shapes, numbers and texts: against accidents, not against forgery."""
    value = zlib.crc32(repr(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        value = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode(), value)
        value = zlib.crc32(tensor.flatten().view(torch.uint8).numpy(), value)
    return f"{value:08x}"


ADVICE = {
    (errno.ENOSPC, errno.EDQUOT): "Free some space, or choose another folder.",
    (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL): "Choose a shorter name of plain letters.",
    (errno.EACCES, errno.EPERM, errno.EROFS): "Choose a folder that this program may write to.",
}


def _advice(error: Exception) -> str:
    """By the number of the fault, which safetensors tells in its text alone."""
    told = re.search(r"\bcode: (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(told[1]) if told else None)
    return next((words for numbers, words in ADVICE.items() if number in numbers), "Choose another folder.")


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{Path(path).name} is not a readable safetensors file: {error}. Save it again.")


def _remove_stale(path: Path) -> None:
    for left in path.parent.glob(f".{path.name}.*.partial"):
        if time.time() - left.stat().st_mtime > STALE:
            _unlink(left)


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # a folder that cannot be written to: nothing was written, and the first error is the one to hear of
