"""Reads a host MODEL: is it a UNet the method can inflate, and what are its blocks?"""

import re

import comfy.model_sampling
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample
from comfy.model_patcher import ModelPatcher

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import Fingerprint, fingerprint
from ....ei2_modules.inflation.unet_spec import Block, UNetSpec
from .base_weights import meaning, rounding, storage

_PLACE = re.compile(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.\d+\.transformer_blocks\.\d+$")


def describe(model: ModelPatcher) -> UNetSpec:
    """The UNet behind a ModelPatcher. Raises EI2Error for a model without image transformer blocks."""
    unet, family = model.model.diffusion_model, type(model.model.model_config).__name__
    blocks = tuple(_blocks(unet))
    if not blocks or any("time_stack" in name for name, _ in unet.named_modules()):
        raise EI2Error(
            f"This is a {family} model ({type(unet).__name__}), not an image UNet with transformer blocks. EI² works "
            "with checkpoints of Stable Diffusion 1.x, 2.x and XL, not with DiT (SD3, Flux, ...) or video models. Load "
            "one of those."
        )
    return UNetSpec(
        family=family,
        prediction=prediction_type(model),
        context_dim=unet.get_submodule(blocks[0].path).attn2.to_k.in_features,
        channels=model.get_model_object("latent_format").latent_channels,
        blocks=blocks,
    )


def prediction_type(model: ModelPatcher) -> str:
    """Either "eps" or "v"; anything else (flow, EDM, x0, LCM) has another schedule or rule and is refused."""
    found = model.get_model_object("model_sampling")
    prediction = _prediction(found)
    if prediction is None:
        raise EI2Error(_refusal(found, _checkpoints_own(model)))
    return prediction


def _prediction(sampling) -> str | None:
    rule = type(sampling).calculate_denoised  # subclasses, as LCM of EPS, have their own
    kinds = {
        comfy.model_sampling.EPS.calculate_denoised: "eps",
        comfy.model_sampling.V_PREDICTION.calculate_denoised: "v",
    }
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    return kinds.get(rule) if discrete and len(sampling.sigmas) == 1000 else None


def _checkpoints_own(model):
    """The model's sampling beneath what a node has set, or None where none has."""
    if "model_sampling" not in model.object_patches:
        return None
    return model.object_patches_backup.get("model_sampling", model.model.model_sampling)


def _refusal(found, own) -> str:
    need = "EI² needs eps- or v-prediction on the 1000-step Stable Diffusion schedule."
    if own is None:
        return (
            f"This model predicts by {_in_words(found)}: {need} Load a checkpoint of Stable Diffusion 1.x, 2.x or XL "
            "(not an LCM, EDM or flow one)."
        )
    text = f"A ModelSampling node before this one has set the model to {_in_words(found)}: {need}"
    if _prediction(own) is None:
        return f"{text} The checkpoint's own, {_in_words(own)}, is no other: load one of SD1.x, SD2.x or SDXL."
    return f"{text} Take that node out of EI²'s model, or set it to what the checkpoint has: {_in_words(own)}."


def _in_words(sampling) -> str:
    """As the host makes such classes: of a schedule and a rule."""
    schedule, *rules = [cls.__name__ for cls in type(sampling).__bases__]
    steps = f"with {len(sampling.sigmas)} timesteps" if hasattr(sampling, "sigmas") else "without timesteps"
    return f"{rules[-1] if rules else type(sampling).__name__} on {schedule} {steps}"


def sigma_table(model: ModelPatcher) -> torch.Tensor:
    """The model's sigmas, (1000,), rising."""
    return model.get_model_object("model_sampling").sigmas


def base_fingerprint(model: ModelPatcher, spec: UNetSpec) -> Fingerprint:
    """Of the checkpoint's own key and query projections, beneath any LoRA or tuned weights that are loaded now."""
    keys = [f"diffusion_model.{path}.weight" for path in (*spec.key_paths(), *spec.query_paths())]
    numbers, lost, coarsest = [], 0.0, ""
    for key in keys:
        weight, stored = meaning(model, key), storage(model, key)
        numbers += fingerprint([weight])
        taken = rounding(weight, stored)
        if taken > lost:
            lost, coarsest = taken, str(stored)
    return Fingerprint(numbers, lost, coarsest)


def queries_without(model: ModelPatcher, spec: UNetSpec, differences: dict[str, torch.Tensor]) -> list[float]:
    """Fingerprint of the checkpoint's queries after these differences are taken off them."""
    numbers = []
    for path in spec.query_paths():
        weight = meaning(model, f"diffusion_model.{path}.weight")
        numbers += fingerprint([weight.float() - differences[path].to(weight.device)])
    return numbers


def attended_channels(unet: UNetModel) -> float:
    """Channels of all transformer blocks, each by the share of the latent's pixels that it sees: 2820 for SD1.5."""
    total, shrunk = 0.0, 0
    middle = [unet.middle_block] if unet.middle_block is not None else []  # KOALA has none
    for part in (*unet.input_blocks, *middle, *unet.output_blocks):
        modules = list(part.modules())
        shrunk += any(isinstance(m, Downsample) for m in modules)  # in a part of its own
        blocks = [m for m in modules if isinstance(m, BasicTransformerBlock)]
        total += sum(m.n_heads * m.d_head for m in blocks) / 4**shrunk
        shrunk -= any(isinstance(m, Upsample) for m in modules)  # behind the blocks
    return total


def _blocks(unet):
    for path, module in unet.named_modules():
        match = _PLACE.match(path)
        if match and isinstance(module, BasicTransformerBlock):
            place = (match[1], int(match[2])) if match[1] else ("middle", 0)
            yield Block(path, place, module.n_heads * module.d_head, module.n_heads)
