"""A tensor of our own with the numbers of another."""

import torch
from torch import Tensor


def own_copy(tensor: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An ordinary tensor in memory of its own, without a past: autograd may save it and an optimiser change it.

    `clone` and `detach` do not promise that: a class of tensors may give itself back, as that of ComfyUI-GGUF does,
    and in inference mode's tensors they live on.
    """
    copy = torch.empty(tuple(tensor.shape), dtype=dtype or tensor.dtype, device=tensor.device)
    with torch.no_grad():
        copy.copy_(tensor)  # what this returns may be of the other class again
    return copy
