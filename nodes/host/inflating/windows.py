"""Long clips through the host's context windows: ours where none are set, and with anchors in both cases."""

from collections.abc import Callable

import torch
from comfy.context_windows import (
    ContextFuseMethods,
    ContextSchedule,
    IndexListContextHandler,
    get_matching_fuse_method,
)
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key

from ....ei2_modules.attention.layouts import pools
from ....ei2_modules.attention.windows import Anchors, anchor_frames, windows
from ....ei2_modules.config import WINDOW, InflateOptions
from ..conditioning import conds_of_frames
from . import animatediff
from .frames import Clip, only_frames
from .guidance import refuse_in_windows
from .keys import ANCHORS, CLIP, WINDOWS

WINDOW_OPTION = "context_window"  # the host's name for the window that a call is of


class Windows(IndexListContextHandler):
    """The host's handler for frames of an image model; the first window of a step is that of the anchors.

    ratio: r of FFAM; None for another attention, which sees no anchors.
    """

    def __init__(self, ratio: int | None, length: int = WINDOW):
        schedule = _anchors_first(ContextSchedule(WINDOWS, _shifting))
        super().__init__(schedule, get_matching_fuse_method(ContextFuseMethods.FLAT), length)
        self.causal_window_fix = False  # of a newer host: a frame more in front, for video autoencoders
        self.ratio = ratio

    @classmethod
    def like(cls, handler: IndexListContextHandler, ratio: int | None) -> "Windows":
        """With the settings of a Context Windows node."""
        made = cls(ratio)
        own = {"context_schedule": _anchors_first(handler.context_schedule), "causal_window_fix": False, "ratio": ratio}
        vars(made).update(vars(handler) | own)
        return made

    def set_step(self, timestep, model_options):
        """The step whose sigma is nearest: here a timestep is one sigma a frame, and a step may have substeps."""
        self._step = int((_sigmas(model_options) - timestep[0]).abs().argmin())

    def execute(self, calc_cond_batch, model, conds, x_in, timestep, model_options):
        options = model_options["transformer_options"]
        if self.ratio is not None:
            options[ANCHORS] = Anchors(anchor_frames(len(x_in)), self.ratio)

        def of_window(*args):
            with only_frames(options, options[WINDOW_OPTION].index_list, len(x_in)):
                return calc_cond_batch(*args)

        try:
            return super().execute(of_window, model, conds, x_in, timestep, model_options)
        finally:
            options.pop(ANCHORS, None)
            options.pop(WINDOW_OPTION, None)  # the host leaves it there

    def combine_context_window_results(self, x_in, sub_conds_out, sub_conds, window, window_idx, *rest):
        """What the anchors' own window found is not used: it was run for what the others see of it."""
        if self.ratio is None or window_idx > 0:
            super().combine_context_window_results(x_in, sub_conds_out, sub_conds, window, window_idx, *rest)

    def get_resized_cond(self, cond_in, x_in, window, *device):
        """Also what the host leaves whole: conditioning with rows for the frames, and hints of ControlNets."""
        cond_in = cond_in and conds_of_frames(cond_in, window.index_list)
        return super().get_resized_cond(cond_in, x_in, window, *device)


def sampling_wrapper(options: InflateOptions) -> Callable:
    """For the host's sampling of any kind: say how long the clip is, and put windows in when it needs them."""
    ratio = options.coarse_ratio if pools(options.attention) else None

    def outer_sample(executor, noise, *args, **kwargs):
        guider = executor.class_obj
        chosen = guider.model_options  # a copy that lives as long as this sampling
        chosen.setdefault("transformer_options", {})[CLIP] = Clip.of(len(noise), chosen)
        handler = chosen.get("context_handler")
        by_host = handler is not None and len(noise) > handler.context_length
        if animatediff.cuts_the_clip(guider.model_patcher, len(noise), by_host):
            return executor(noise, *args, **kwargs)
        if handler is None and len(noise) > WINDOW:
            chosen["context_handler"] = Windows(ratio)
        elif type(handler) is IndexListContextHandler and handler.dim == 0:
            chosen["context_handler"] = Windows.like(handler, ratio)
        handler = chosen.get("context_handler")
        if isinstance(handler, Windows):
            refuse_in_windows(chosen, len(noise), handler.context_length)
            add_wrapper_with_key(WrappersMP.PREPARE_SAMPLING, WINDOWS, _estimate_one, chosen, is_model_options=True)
        return executor(noise, *args, **kwargs)

    return outer_sample


def _estimate_one(executor, model, noise_shape, *args, **kwargs):
    """Memory is needed for one window at a time."""
    length = kwargs["model_options"]["context_handler"].context_length
    return executor(model, [min(noise_shape[0], length), *noise_shape[1:]], *args, **kwargs)


def _anchors_first(schedule: ContextSchedule) -> ContextSchedule:
    def lists(frames: int, handler: Windows, model_options: dict) -> list[list[int]]:
        anchors = model_options["transformer_options"].get(ANCHORS)
        found = schedule.func(frames, handler, model_options)
        return found if anchors is None else [anchors.frames, *found]

    return ContextSchedule(schedule.name, lists)


def _shifting(frames: int, handler: Windows, model_options: dict) -> list[list[int]]:
    """By the rank of the sigma, not by the number of the step: inversion and sampling have the same windows at it."""
    sigmas = _sigmas(model_options)
    return windows(frames, handler.context_length, turn=int((sigmas < sigmas[handler._step]).sum()))


def _sigmas(model_options: dict) -> torch.Tensor:
    return model_options["transformer_options"]["sample_sigmas"]
