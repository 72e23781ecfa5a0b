"""Tensors that lie on disk and are read where they are needed: memory-mapped safetensors files."""

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

NAME = "tensor"


def mapped(tensor: Tensor, path: Path) -> Tensor:
    """An equal tensor that takes no main memory, written to `path`, which must stay as it is. Raises OSError."""
    try:
        save_file({NAME: tensor.detach().cpu().contiguous()}, path)
        return load_file(path)[NAME]
    except SafetensorError as error:  # what a full disk ends in
        raise OSError(str(error)) from error
