"""Where an edit may take something from its source: hooks of the UNet that wait for a call that carries a CONTROL."""

from collections.abc import Callable

import comfy.ldm.modules.attention as host_attention
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..inflating.attention_hooks import is_ours
from ..inflating.keys import CONTROL


def with_hooks(model: ModelPatcher, spec: UNetSpec) -> ModelPatcher:
    """A clone whose attention asks the CONTROL of its call; hooks that are there already stay inside ours."""
    clone = model.clone()
    replaced = clone.model_options["transformer_options"].get("patches_replace", {})
    for place in spec.places():
        for attention, hook in (("attn1", _self_hook), ("attn2", _text_hook)):
            inner = replaced.get(attention, {}).get(place)
            made = hook(inner or plain_attention, inner is None)
            made.is_ei2 = inner is None or is_ours(inner)
            clone.set_model_patch_replace(made, attention, *place)
    middle = len(clone.model.diffusion_model.output_blocks) // 2
    clone.set_model_output_block_patch(_feature_patch(middle))
    return clone


def carrying(model_options: dict, control: object) -> dict:
    """Options of calls that this CONTROL takes part in."""
    return {**model_options, "transformer_options": {**model_options["transformer_options"], CONTROL: control}}


def plain_attention(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
    """The host's own, with the heads of the call."""
    return host_attention.optimized_attention(
        q, k, v, extra["n_heads"], attn_precision=extra["attn_precision"], transformer_options=extra
    )


def _self_hook(inner: Callable, is_plain: bool) -> Callable:
    def hook(q: Tensor, k: Tensor, v: Tensor, extra: dict, mask=None) -> Tensor:
        def attend(q: Tensor, k: Tensor) -> Tensor:
            return inner(q, k, v, extra) if mask is None else inner(q, k, v, extra, mask)

        control = extra.get(CONTROL)
        return attend(q, k) if control is None else control.self_attention(attend, q, k, extra)

    return hook


def _text_hook(inner: Callable, is_plain: bool) -> Callable:
    def hook(q: Tensor, k: Tensor, v: Tensor, extra: dict) -> Tensor:
        out, control = inner(q, k, v, extra), extra.get(CONTROL)
        return out if control is None else control.text_attention(out, q, k, v, extra, is_plain)

    return hook


def _feature_patch(block: int) -> Callable:
    def patch(h: Tensor, skip: Tensor, options: dict) -> tuple[Tensor, Tensor]:
        control = options.get(CONTROL)
        if control is not None and options["block"][1] == block:
            h = control.features(h, options)
        return h, skip

    return patch
