"""The tuned queries, as differences among the host's weight patches."""

import uuid

import torch
from comfy.model_patcher import ModelPatcher

from ....ei2_modules.inflation.weights import EI2Weights


def add_queries(model: ModelPatcher, weights: EI2Weights | None) -> None:
    if weights is not None:
        model.add_patches({_key(path): ("diff", (t,)) for path, t in weights.tensors.queries.items()})


def remove_queries(model: ModelPatcher, weights: EI2Weights | None) -> None:
    """Drop exactly the differences we added, known by their tensors; LoRAs on the same keys stay."""
    if weights is None:
        return
    for key in map(_key, weights.tensors.queries):
        kept = [p for p in model.patches.get(key, []) if not is_our_patch(p, weights)]
        if kept:
            model.patches[key] = kept
        else:
            model.patches.pop(key, None)
    model.patches_uuid = uuid.uuid4()


def is_our_patch(patch: tuple, weights: EI2Weights | None) -> bool:
    """Whether an entry of the host's list of patches is one of the differences in `weights`."""
    value = patch[1]
    ours = weights.tensors.queries.values() if weights else ()
    return isinstance(value, tuple) and value[0] == "diff" and any(value[1][0] is t for t in ours)


def put_on_twice(model: ModelPatcher, weights: EI2Weights) -> str | None:
    """What is wrong when another node has added these differences to a model without ours, or None."""
    path, difference = next(iter(weights.tensors.queries.items()))
    if not any(_same(patch[1], difference) for patch in model.patches.get(_key(path), [])):
        return None
    return (
        "Another node, such as Load LoRA, has put the queries of these very weights on the model already: they "
        "would count twice. Take it out; Inflate UNet to EI² puts all of them on."
    )


def _same(value, difference: torch.Tensor) -> bool:
    if not (isinstance(value, tuple) and value[0] == "diff"):
        return False
    return value[1][0].shape == difference.shape and torch.equal(value[1][0].to(difference), difference)


def _key(path: str) -> str:
    return f"diffusion_model.{path}.weight"
