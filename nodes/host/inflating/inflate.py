"""An image MODEL to a video MODEL and back: which parts there are, and in which order they go in and out."""

import logging
from dataclasses import dataclass, replace

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....ei2_modules.attention.layouts import pools
from ....ei2_modules.config import InflateOptions
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import Fingerprint
from ....ei2_modules.inflation.fit import check_fits, warned
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ....ei2_modules.inflation.weights import EI2Weights
from .attention_hooks import add_frame_attention, remove_attention
from .foreign import telling_wrapper
from .group_norms import add_pooled_norms, remove_pooled_norms
from .keys import OURS
from .query_patches import add_queries, put_on_twice, remove_queries
from .temporal_hook import add_temporal, remove_temporal
from .unet import base_fingerprint, describe, queries_without
from .windows import sampling_wrapper


@dataclass(frozen=True)
class Inflated:
    """What an inflated MODEL carries as an attachment. Shared by its clones, never changed."""

    spec: UNetSpec
    options: InflateOptions
    fingerprint: Fingerprint
    weights: EI2Weights | None
    allow_mismatch: bool = False  # weights of another checkpoint are only warned of

    def starting_from(self, weights: EI2Weights | None, model: ModelPatcher) -> "Inflated":
        """With the start of STAM that these weights were tuned from. Raises WeightsError when they do not fit the
        model, which this describes."""
        if weights is None:
            return self

        def without_ours() -> list[float]:
            return queries_without(model, self.spec, weights.tensors.queries)

        fits = self.spec, self.options, self.fingerprint, self.allow_mismatch, without_ours
        notes = check_fits(weights.header, *fits)
        notes += warned(put_on_twice(deflate(model), weights), self.allow_mismatch)
        for note in notes:
            logging.warning("EI²: %s", note)
        return replace(self, options=replace(self.options, stam_init=weights.options().stam_init))


def inflate(
    model: ModelPatcher, options: InflateOptions, weights: EI2Weights | None = None, allow_mismatch: bool = False
) -> ModelPatcher:
    """A clone of `model` with frame attention and temporal modules; an earlier inflation is replaced.

    The model that came in is not touched. Raises EI2Error when it has no blocks to inflate, WeightsError
    when the weights were tuned for another one; with allow_mismatch only those of other shapes.
    """
    spec = describe(model)
    inflated = Inflated(spec, options, base_fingerprint(model, spec), weights, allow_mismatch)
    inflated = inflated.starting_from(weights, model)
    options = inflated.options
    _warn_other_ratio(options, weights)
    clone = deflate(model)
    add_frame_attention(clone, spec, options)
    add_temporal(clone, spec, options, weights)
    add_queries(clone, weights)
    add_pooled_norms(clone, options)
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, OURS, sampling_wrapper(options))
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, OURS, telling_wrapper(spec, options, _tuned_frames(weights)))
    clone.set_attachments(OURS, inflated)
    return clone


def deflate(model: ModelPatcher) -> ModelPatcher:
    """A clone without anything of ours; what other nodes patched stays."""
    clone = model.clone()
    inflated = clone.get_attachment(OURS)
    if inflated is None:
        return clone
    clone.remove_attachments(OURS)
    clone.remove_wrappers_with_key(WrappersMP.OUTER_SAMPLE, OURS)
    remove_queries(clone, inflated.weights)
    remove_temporal(clone)
    remove_pooled_norms(clone)
    remove_attention(clone, "attn1", inflated.spec)
    return clone


def inflated_of(model: ModelPatcher, node: str) -> Inflated:
    """The attachment of an inflated model; a plain one is refused in the name of `node`."""
    inflated = model.get_attachment(OURS)
    if inflated is None:
        raise EI2Error(
            f"{node} needs an inflated model, and this one is plain. Put 'Inflate UNet to EI²' between the loader "
            "and this node (for frame-by-frame editing choose mode custom, attention per-frame, temporal module none)."
        )
    return replace(inflated, spec=describe(model))  # another node may have changed the prediction type since


def _tuned_frames(weights: EI2Weights | None) -> int | None:
    """That a step of their tuning saw: None where the file does not say."""
    counts = [weights.header.run.get(key) for key in ("frames", "window")] if weights else [None]
    return None if None in counts else min(counts)


def _warn_other_ratio(options: InflateOptions, weights: EI2Weights | None) -> None:
    tuned = weights.options().coarse_ratio if weights else options.coarse_ratio
    if pools(options.attention) and options.coarse_ratio != tuned:
        logging.warning("EI²: the weights were tuned at coarse ratio %d and run at %d.", tuned, options.coarse_ratio)
