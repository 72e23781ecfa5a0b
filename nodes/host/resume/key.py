"""What makes a tuning the same as an earlier one: hashes of its clip, caption and model."""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch
from comfy.controlnet import ControlBase, ControlLora, ControlNet, T2IAdapter
from comfy.model_patcher import ModelPatcher

from ....ei2_modules.tuning.state import RunKey
from ..inflating.attention_hooks import is_ours
from ..inflating.inflate import Inflated
from ..inflating.keys import TOKEN
from ..inflating.query_patches import is_our_patch
from ..inflating.unet import sigma_table
from ..precision import dtype_name
from ..tuning.run import TuningJob


def run_key(job: TuningJob) -> RunKey:
    """Of a tuning that is about to begin."""
    inflated, start = job.inflated, job.start
    tuning = {name: value for name, value in asdict(job.options).items() if name != "steps"}
    tuning["window"] = min(job.options.window, len(job.samples))
    return RunKey(
        clip=content_hash(job.samples),
        caption=content_hash(job.texts.positive),
        start=content_hash([start.tensors.queries, start.tensors.temporal] if start else None),
        patches=patches_hash(job.model, inflated),
        precision=dtype_name(job.dtype),
        model=[inflated.spec.family, inflated.spec.prediction],
        widths=inflated.spec.widths(),
        fingerprint=inflated.fingerprint.numbers,
        inflation=asdict(inflated.options),
        tuning=tuning | {"betas": list(job.options.betas)},  # as JSON gives it back
    )


def content_hash(value: Any) -> str | None:
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


def patches_hash(model: ModelPatcher, inflated: Inflated) -> str | None:
    """Of what other nodes changed in the model. None with hooks among it: a function's settings cannot be seen."""
    options = model.model_options["transformer_options"]
    replaced = [hook for places in options.get("patches_replace", {}).values() for hook in places.values()]
    hooked = options.get("patches") or not all(is_ours(hook) for hook in replaced)
    if (
        hooked
        or options.keys() - {"patches_replace", "patches", TOKEN}
        or model.object_patches.keys() - {"model_sampling"}
    ):
        return None
    patches = {key: [p for p in found if not is_our_patch(p, inflated.weights)] for key, found in model.patches.items()}
    return content_hash([{key: found for key, found in patches.items() if found}, sigma_table(model)])
