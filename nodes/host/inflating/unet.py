"""Reads a host MODEL: is it a UNet the method can inflate, and what are its blocks?"""

import re

import comfy.model_sampling
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import fingerprint
from ....ei2_modules.inflation.unet_spec import Block, UNetSpec

_PLACE = re.compile(r"(?:(input|output)_blocks\.(\d+)|middle_block)\.\d+\.transformer_blocks\.\d+$")


def describe(model) -> UNetSpec:
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


def prediction_type(model) -> str:
    """Either "eps" or "v"; anything else (flow, EDM, x0) has another schedule and is refused."""
    sampling = model.get_model_object("model_sampling")
    names = [cls.__name__ for cls in type(sampling).__mro__]
    discrete = isinstance(sampling, comfy.model_sampling.ModelSamplingDiscrete)
    parameterisation = next((n for n in names if n in ("X0", "EDM", "IMG_TO_IMG", "V_PREDICTION", "EPS")), names[0])
    kinds = {"EPS": "eps", "V_PREDICTION": "v"}
    steps = len(getattr(sampling, "sigmas", ()))
    if not discrete or steps != 1000 or parameterisation not in kinds:
        raise EI2Error(
            f"This model predicts by {parameterisation} on {type(sampling).__mro__[1].__name__} with {steps} timesteps"
            ": EI² needs eps- or v-prediction on the 1000-step Stable Diffusion schedule. Load a checkpoint of "
            "Stable Diffusion 1.x, 2.x or XL (not an LCM, EDM or flow one)."
        )
    return kinds[parameterisation]


def sigma_table(model):
    """The model's sigmas, (1000,), rising."""
    return model.get_model_object("model_sampling").sigmas


def base_fingerprint(model, spec: UNetSpec) -> list[float]:
    """Of the checkpoint's own key projections, beneath any LoRA or tuned weights that are loaded now."""
    keys = [f"diffusion_model.{b.path}.{attn}.to_k.weight" for b in spec.blocks for attn in ("attn1", "attn2")]
    return fingerprint([base_weight(model, key) for key in keys])


def base_weight(model, key: str):
    """A weight as the checkpoint holds it, whatever is patched in at the moment."""
    saved = model.backup.get(key)
    return saved.weight if saved is not None else model.get_model_object(key)


def attended_channels(unet) -> float:
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
