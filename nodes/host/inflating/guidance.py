"""Other nodes' guidance and caches of steps: left out where the model itself is asked, refused where they fail.

Inversion and tuning are without guidance and take every step. Such nodes act at guidance 1 too: they change its result,
they keep from step to step what fits falling sigmas only, and a cache answers in place of the model.
"""

import logging
from collections.abc import Callable

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ....ei2_modules.errors import EI2Error

AFTER_CFG = "sampler_post_cfg_function"
FUNCTIONS = ("sampler_cfg_function", "sampler_pre_cfg_function", AFTER_CFG)  # model options
CACHE = "easycache"  # of the host's EasyCache and LazyCache: transformer option, and EasyCache's key for wrappers
CACHES = (CACHE, "lazycache")
BY_CALL = "SelfAttentionGuidance"  # blurs by the attention of the last call of the UNet


def without_guidance(model: ModelPatcher, doing: str) -> ModelPatcher:
    """A clone without other nodes' guidance and caches, which the log names; the model itself where there are none."""
    names = _found(model)
    if not names:
        return model
    logging.info("EI²: left out of the %s, which is without guidance: %s.", doing, ", ".join(names))
    clone = model.clone()
    for name in (*FUNCTIONS, "disable_cfg1_optimization"):
        clone.model_options.pop(name, None)
    clone.model_options["transformer_options"].pop(CACHE, None)
    clone.wrappers.pop(WrappersMP.PREDICT_NOISE, None)
    for kind in list(clone.wrappers):
        for key in CACHES:
            clone.remove_wrappers_with_key(kind, key)
    return clone


def refuse_in_windows(model_options: dict, frames: int, length: int) -> None:
    """Raise EI2Error for what takes the frames of one call of the UNet for those of the next."""
    wrappers = model_options["transformer_options"].get("wrappers", {})
    names = {_name(function) for function in model_options.get(AFTER_CFG, ())} & {BY_CALL}
    if CACHE in wrappers.get(WrappersMP.DIFFUSION_MODEL, {}):
        names.add("EasyCache")
    if names and frames > length:
        raise EI2Error(
            f"{' and '.join(sorted(names))} cannot work with a long clip: its {frames} frames go through the model in "
            f"windows of {length}, and each would be taken for the one before. Take it off the model, or sample at "
            f"most {length} frames."
        )


def _found(model: ModelPatcher) -> list[str]:
    """Names of the nodes that are there."""
    given = [model.model_options.get(name, ()) for name in FUNCTIONS]
    functions = [f for one in given for f in ([one] if callable(one) else one)]
    wrappers = model.wrappers.get(WrappersMP.PREDICT_NOISE, {})
    functions += [f for key, of_key in wrappers.items() if key not in CACHES for f in of_key]
    cache = model.model_options["transformer_options"].get(CACHE)
    names = [*map(_name, functions), *([getattr(cache, "name", CACHE)] if cache is not None else [])]
    return list(dict.fromkeys(names))


def _name(function: Callable) -> str:
    """Of the node's class that a function was made in, as far as it can be told."""
    return getattr(function, "__qualname__", type(function).__qualname__).split(".")[0]
