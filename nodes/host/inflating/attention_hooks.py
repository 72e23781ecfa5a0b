"""Frame attention in place of the self-attention of every block, by the host's attention replacement hooks."""

import functools
import logging
from collections.abc import Callable, Iterable

import comfy.ldm.modules.attention as host_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.attention.frame import frame_attention
from ....ei2_modules.attention.layouts import crossing
from ....ei2_modules.config import InflateOptions
from ....ei2_modules.inflation.unet_spec import UNetSpec
from .frames import frames_in
from .keys import ANCHORS

NAMES = {"attn1": "self-attention", "attn2": "text-attention"}


def add_frame_attention(model: ModelPatcher, spec: UNetSpec, options: InflateOptions) -> None:
    """Put our hooks into the self-attention of every place where frames see each other."""
    kinds = crossing(options.attention, spec.places())
    for kind in dict.fromkeys(kinds.values()):
        places = [place for place in kinds if kinds[place] == kind]
        replace_attention(model, "attn1", _frame_attention_hook(kind, options.coarse_ratio), places)


def replace_attention(model: ModelPatcher, attention: str, hook: Callable, places: Iterable[tuple[str, int]]) -> None:
    """The host's replacement hook for "attn1" or "attn2" at these places. Of two the later one wins."""
    hook.is_ei2 = True
    earlier = _replaced(model, attention)
    for place in places:
        if place in earlier:
            logging.warning("EI²: the %s hook another node set at %s %d is replaced.", NAMES[attention], *place)
        model.set_model_patch_replace(hook, attention, *place)


def remove_attention(model: ModelPatcher, attention: str, spec: UNetSpec) -> None:
    """Take out what `replace_attention` put in; other nodes' hooks stay."""
    replaced = _replaced(model, attention)
    for place in spec.places():
        if is_ours(replaced.get(place)):
            del replaced[place]


def is_ours(hook: Callable | None) -> bool:
    return getattr(hook, "is_ei2", False)


def _replaced(model: ModelPatcher, attention: str) -> dict:
    return model.model_options["transformer_options"].get("patches_replace", {}).get(attention, {})


def _frame_attention_hook(kind: str, ratio: int) -> Callable:
    """A closure, because the host deep-copies callable objects with every clone, but not functions."""

    def hook(q: Tensor, k: Tensor, v: Tensor, extra_options: dict, mask=None) -> Tensor:
        size = tuple(extra_options["activations_shape"][-2:])

        def attend(q, k, v, heads):
            return host_attention.optimized_attention(
                q, k, v, heads, attn_precision=extra_options["attn_precision"], transformer_options=extra_options
            )

        heads = extra_options["n_heads"]
        if q.shape[0] != k.shape[0] or k.shape[1] != size[0] * size[1]:
            _warn_tiled()
            return attend(q, k, v, heads)
        frames = frames_in(extra_options, k.shape[0])
        return frame_attention(
            q, k, v, kind=kind, heads=heads, frames=frames, size=size, ratio=ratio,
            outside=_anchors(extra_options, frames, k, v, size), attend=attend,
        )  # fmt: skip

    return hook


def _anchors(
    extra_options: dict, frames: int, k: Tensor, v: Tensor, size: tuple[int, int]
) -> tuple[Tensor, Tensor] | None:
    """What a window of a long clip sees of frames outside it; None where there are no windows."""
    anchors = extra_options.get(ANCHORS)
    if anchors is None:
        return None
    place = (*extra_options["block"], extra_options["block_index"])
    texts = list(zip(extra_options["cond_or_uncond"], extra_options["uuids"], strict=True))
    window = extra_options["context_window"].index_list
    tiles = len(k) // (frames * len(texts))
    texts = anchors.parts(place, tiles * texts, window)
    if list(window) == anchors.frames:
        anchors.record(place, texts, k, v, size)
    return anchors.outside(place, texts, window)


@functools.cache
def _warn_tiled() -> None:
    logging.warning("EI²: another node cuts the self-attention into tiles; frames attend only to themselves there.")
