"""How many frames of the clip a call of the UNet holds, and telling other packs which ones.

Who cuts the clip says so in the transformer options; the batch alone does not tell, for other nodes stack tiles in it.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from comfy.patcher_extension import WrappersMP

from ....ei2_modules.errors import EI2Error
from .keys import AD_PARAMS, CLIP, OURS

AROUND_A_CALL = (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL)


@dataclass(frozen=True)
class Clip:
    """What is known of a clip when its sampling starts."""

    frames: int
    hooks: tuple[str, ...] = ()  # of other nodes, that may change what a call holds: for messages

    @classmethod
    def of(cls, frames: int, model_options: dict) -> "Clip":
        """model_options: the sampling's own."""
        unet = model_options.get("model_function_wrapper")
        wrappers = model_options.get("transformer_options", {}).get("wrappers", {})
        keys = [key for kind in AROUND_A_CALL for key in wrappers.get(kind, {}) if key and not key.startswith(OURS)]
        return cls(frames, tuple(dict.fromkeys([*([_name(unet)] if unet else []), *map(str, keys)])))


def frames_in(transformer_options: dict, rows: int) -> int:
    """Frames of one clip in a call of so many rows: every frame once per text, and again for every tile of a tiler.

    Raises EI2Error where the rows are not whole clips. Without a word of who cuts the clip, rows per text.
    """
    texts = len(transformer_options.get("cond_or_uncond", [0]))
    frames = _told(transformer_options)
    if frames is None:
        return rows // texts
    if rows % (frames * texts):
        clip = transformer_options.get(CLIP)
        hooks = f" ({', '.join(clip.hooks)})" if clip and clip.hooks else ", or the sampler,"
        raise EI2Error(
            f"A call of the UNet holds {rows} rows for {texts} text{'s' * (texts > 1)}, which are not whole clips of "
            f"{frames} frames. Another node{hooks} cuts the clip apart or stacks something else into the batch. Take "
            "it out, or set it to hand on all frames at once."
        )
    return frames


@contextlib.contextmanager
def only_frames(transformer_options: dict, frames: Sequence[int], of: int) -> Iterator[None]:
    """Say in AnimateDiff-Evolved's words that calls hold these frames of `of`: ControlNets and IP-Adapters read it."""
    before = transformer_options.get(AD_PARAMS)
    transformer_options[AD_PARAMS] = {"full_length": of, "context_length": len(frames), "sub_idxs": list(frames)}
    try:
        yield
    finally:
        if before is None:
            del transformer_options[AD_PARAMS]
        else:
            transformer_options[AD_PARAMS] = before


def _told(transformer_options: dict) -> int | None:
    window = transformer_options.get("context_window")
    if window is not None:
        return len(window.index_list)
    among = (transformer_options.get(AD_PARAMS) or {}).get("sub_idxs")
    if among is not None:
        return len(among)
    clip = transformer_options.get(CLIP)
    return clip.frames if clip else None


def _name(hook: Callable) -> str:
    """Its own, and the file it comes from."""
    named = hook if hasattr(hook, "__qualname__") else type(hook)
    file = named.__module__.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{named.__qualname__} of {file}"
