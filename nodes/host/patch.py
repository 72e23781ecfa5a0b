"""Puts the method into a clone of a host MODEL, by the host's own means, and takes it out again.

FFAM is an attention replacement hook. The temporal modules live in a ModelPatcher of their own, which the
host loads and offloads with the UNet; an injection hooks them in after each block's feed-forward.
"""

import functools
import logging
import uuid
from dataclasses import dataclass, replace

import comfy.ldm.modules.attention as host_attention
import comfy.model_patcher
import comfy.ops
import torch
from comfy.patcher_extension import PatcherInjection, WrappersMP

from ...ei2_modules.config import InflateOptions
from ...ei2_modules.errors import EI2Error
from ...ei2_modules.frame_attention import frame_attention
from ...ei2_modules.inflate import TemporalBank, UNetSpec, fresh_bank
from ...ei2_modules.weights import EI2Weights, check_fits
from .foreign import telling_wrapper
from .unet import base_fingerprint, describe
from .windows import ANCHORS, sampling_wrapper

KEY = "ei2"  # of our attachment, additional model, injection and transformer option
_SLOT, _HANDLES = "_ei2_temporal", "_ei2_handles"


@dataclass(frozen=True)
class Inflated:
    """What an inflated MODEL carries as an attachment. Shared by its clones, never changed."""

    spec: UNetSpec
    options: InflateOptions
    fingerprint: list[float]
    weights: EI2Weights | None


def inflate(model, options: InflateOptions, weights: EI2Weights | None = None):
    """A clone of `model` with frame attention and temporal modules; an earlier inflation is replaced.

    The model that came in is not touched. Raises EI2Error when it has no blocks to inflate, WeightsError
    when the weights were tuned for another one.
    """
    spec = describe(model)
    fingerprint = base_fingerprint(model, spec)
    if weights is not None:
        check_fits(weights.header, spec, options, fingerprint)
        options = replace(options, stam_init=weights.options().stam_init)
        _warn_other_ratio(options, weights.options())
    clone = deflate(model)
    _replace_attention(clone, spec, options)
    _add_temporal(clone, spec, options, weights)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, sampling_wrapper(options))
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, telling_wrapper(spec, options))
    if weights is not None:
        clone.add_patches(_query_patches(weights))
    clone.set_attachments(KEY, Inflated(spec, options, fingerprint, weights))
    return clone


def _warn_other_ratio(options: InflateOptions, tuned: InflateOptions) -> None:
    if options.attention == "FFAM" and options.coarse_ratio != tuned.coarse_ratio:
        logging.warning(
            "EI²: the weights were tuned at coarse ratio %d and run at %d.", tuned.coarse_ratio, options.coarse_ratio
        )


def deflate(model):
    """A clone without anything of ours; what other nodes patched stays."""
    clone = model.clone()
    state = clone.get_attachment(KEY)
    if state is None:
        return clone
    clone.remove_attachments(KEY)
    clone.remove_injections(KEY)
    clone.remove_additional_models(KEY)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, KEY)
    options = clone.model_options["transformer_options"]
    options.pop(KEY, None)
    replaced = options.get("patches_replace", {}).get("attn1", {})
    for place in {b.place for b in state.spec.blocks}:
        if getattr(replaced.get(place), "is_ei2", False):
            del replaced[place]
    if state.weights is not None:
        remove_query_patches(clone, state.weights)
    return clone


def inflated_state(model, node: str) -> Inflated:
    """The attachment of an inflated model; a plain one is refused in the name of `node`."""
    state = model.get_attachment(KEY)
    if state is None:
        raise EI2Error(
            f"{node} needs an inflated model, and this one is plain. Put 'Inflate UNet to EI²' between the loader "
            "and this node (for frame-by-frame editing choose mode custom, attention per-frame, temporal module none)."
        )
    return replace(state, spec=describe(model))  # another node may have changed the prediction type since


def frames_in(transformer_options: dict, batch: int) -> int:
    """Frames of one clip: the batch holds every frame once per cond or uncond that runs in this call."""
    return batch // len(transformer_options.get("cond_or_uncond", [0]))


def _replace_attention(model, spec: UNetSpec, options: InflateOptions) -> None:
    if options.attention == "per-frame":
        return
    hook = _attention_hook(options.attention, options.coarse_ratio)
    earlier = model.model_options["transformer_options"].get("patches_replace", {}).get("attn1", {})
    for place in dict.fromkeys(b.place for b in spec.blocks):
        if place in earlier:
            logging.warning("EI²: the self-attention hook another node set at %s %d is replaced.", *place)
        model.set_model_attn1_replace(hook, *place)


def _attention_hook(kind: str, ratio: int):
    """A closure, because the host deep-copies callable objects with every clone, but not functions."""

    def hook(q, k, v, extra_options, mask=None):
        size = tuple(extra_options["activations_shape"][-2:])

        def attend(q, k, v, heads):
            return host_attention.optimized_attention(
                q, k, v, heads, attn_precision=extra_options["attn_precision"], transformer_options=extra_options
            )

        heads = extra_options["n_heads"]
        if q.shape[0] != k.shape[0] or k.shape[1] != size[0] * size[1]:
            _warn_tiled()
            return attend(q, k, v, heads)
        return frame_attention(
            q, k, v, kind=kind, heads=heads, frames=frames_in(extra_options, k.shape[0]), size=size, ratio=ratio,
            outside=_anchors(extra_options, k, v, size), attend=attend,
        )  # fmt: skip

    hook.is_ei2 = True
    return hook


def _anchors(extra_options: dict, k, v, size):
    """What a window of a long clip sees of frames outside it; None where there are no windows."""
    anchors = extra_options.get(ANCHORS)
    if anchors is None:
        return None
    place = (*extra_options["block"], extra_options["block_index"])
    texts = list(zip(extra_options["cond_or_uncond"], extra_options["uuids"], strict=True))
    return anchors.meet(place, texts, extra_options["context_window"].index_list, k, v, size)


@functools.cache
def _warn_tiled() -> None:
    logging.warning("EI²: another node cuts the self-attention into tiles; frames attend only to themselves there.")


def _add_temporal(model, spec: UNetSpec, options: InflateOptions, weights: EI2Weights | None) -> None:
    tensors = weights.tensors.temporal if weights else fresh_bank(spec, options).folded(options.stam_init)
    if options.temporal == "none":
        return
    dtype = model.model_dtype()
    dtype = dtype if dtype in (torch.float32, torch.float16, torch.bfloat16) else torch.float16
    bank = TemporalBank(spec, options.temporal, comfy.ops.manual_cast.Linear, dtype).requires_grad_(False)
    bank.load(tensors)
    patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = patcher_class(bank, load_device=model.load_device, offload_device=model.offload_device)
    model.set_additional_models(KEY, [patcher])
    model.set_injections(KEY, [PatcherInjection(inject=_inject, eject=_eject)])
    model.model_options["transformer_options"][KEY] = uuid.uuid4().hex


def _inject(patcher) -> None:
    bank = patcher.get_additional_models_with_key(KEY)[0].model
    token = patcher.model_options["transformer_options"][KEY]
    attach(patcher.model, dict(bank.items()), token)


def _eject(patcher) -> None:
    detach(patcher.model)


def attach(base_model, temporal: dict, token: str) -> None:
    """Hook `temporal` (path of a block -> callable(x, frames)) in after the feed-forward.

    The hooks act only in calls whose transformer options carry `token`: should the host drop a patcher
    without ejecting it, they are inert for every other model that shares the UNet.
    """
    detach(base_model)
    handles = []
    for path, module in temporal.items():
        block = base_model.diffusion_model.get_submodule(path)
        block.__dict__[_SLOT] = (token, module)  # past nn.Module: the UNet's state dict must not change
        handles.append(block.register_forward_hook(_temporal_hook, with_kwargs=True))
    base_model.__dict__[_HANDLES] = handles


def detach(base_model) -> None:
    """Undo `attach`; harmless when nothing is attached."""
    for handle in base_model.__dict__.pop(_HANDLES, ()):
        handle.remove()
    for block in base_model.diffusion_model.modules():
        block.__dict__.pop(_SLOT, None)


def _temporal_hook(block, args, kwargs, out):
    # One shared function reading the block's slot: a closure per block would make torch.compile recompile each.
    token, module = getattr(block, _SLOT)
    options = kwargs.get("transformer_options", {})
    if options.get(KEY) != token:
        return out
    return module(out, frames_in(options, out.shape[0]))


def _query_patches(weights: EI2Weights) -> dict:
    return {f"diffusion_model.{path}.weight": ("diff", (t,)) for path, t in weights.tensors.queries.items()}


def remove_query_patches(model, weights: EI2Weights) -> None:
    """Drop exactly the differences we added, known by their tensors; LoRAs on the same keys stay."""
    for path in weights.tensors.queries:
        key = f"diffusion_model.{path}.weight"
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
