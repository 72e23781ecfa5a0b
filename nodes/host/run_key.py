"""What makes a tuning the same as an earlier one: hashes of its clip, caption and model."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict

import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, T2IAdapter

from ...ei2_modules.config import TuningOptions
from ...ei2_modules.tuning_state import RunKey
from ...ei2_modules.weights import EI2Weights
from .patch import KEY, Inflated, is_our_patch
from .unet import sigma_table


def run_key(
    model, state: Inflated, samples, caption, options: TuningOptions, dtype: torch.dtype, start: EI2Weights | None
) -> RunKey:
    """Of a tuning that is about to begin. samples: the clip's latents; caption: CONDITIONING."""
    tuning = {name: value for name, value in asdict(options).items() if name != "steps"}
    tuning["window"] = min(options.window, len(samples))
    return RunKey(
        clip=content_hash(samples),
        caption=content_hash(caption),
        start=content_hash([start.tensors.queries, start.tensors.temporal] if start else None),
        patches=_patches(model, state),
        precision=str(dtype).removeprefix("torch."),
        model=[state.spec.family, state.spec.prediction],
        widths=state.spec.widths(),
        fingerprint=state.fingerprint,
        inflation=asdict(state.options),
        tuning=tuning | {"betas": list(options.betas)},  # as JSON gives it back
    )


def content_hash(value) -> str | None:
    """Of nested lists and dicts of tensors and plain values; None when something else is among them."""
    digest = hashlib.sha256()
    try:
        for part in _bytes(value):
            digest.update(part)
    except TypeError:
        return None
    return digest.hexdigest()


def _bytes(value) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield f"{key!r}: ".encode()
            yield from _bytes(value[key])
    elif isinstance(value, (list, tuple)):
        yield f"{len(value)} of ".encode()
        for item in value:
            yield from _bytes(item)
    elif value is None or isinstance(value, (str, int, float)):
        yield repr(value).encode()
    elif type(value) in CONTROLS:
        yield from _bytes(_control(value))
    elif isinstance(getattr(value, "weights", None), (list, tuple)):  # a LoRA in the host's hands
        yield type(value).__name__.encode()
        yield from _bytes(value.weights)
    else:
        raise TypeError(type(value).__name__)


CONTROLS = {  # the host's kinds, and where their weights lie
    ControlNet: lambda c: (c.control_model_wrapped.model.state_dict(), c.control_model_wrapped.patches),
    ControlLora: lambda c: (c.control_weights,),
    T2IAdapter: lambda c: (c.t2i_model.state_dict(),),
}


def _control(control: ControlBase) -> list:
    """All that its residuals depend on; what is none of the ordinary kinds of value cannot be compared."""
    plain = ("strength", "timestep_percent_range", "global_average_pooling", "upscale_algorithm", "extra_args",
             "cond_hint_original", "extra_concat_orig", "vae", "extra_hooks", "previous_controlnet")  # fmt: skip
    return [[getattr(control, name) for name in plain], *CONTROLS[type(control)](control)]


def _patches(model, state: Inflated) -> str | None:
    """Of what other nodes changed in the model. None with hooks among it: a function's settings cannot be seen."""
    options = model.model_options["transformer_options"]
    replaced = [hook for places in options.get("patches_replace", {}).values() for hook in places.values()]
    hooked = options.get("patches") or not all(getattr(hook, "is_ei2", False) for hook in replaced)
    if (
        hooked
        or options.keys() - {"patches_replace", "patches", KEY}
        or model.object_patches.keys() - {"model_sampling"}
    ):
        return None
    patches = {key: [p for p in found if not is_our_patch(p, state.weights)] for key, found in model.patches.items()}
    return content_hash([{key: found for key, found in patches.items() if found}, sigma_table(model)])
