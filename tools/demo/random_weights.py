"""Makes a model file with random weights: pictures are noise, everything else is real.

    python -m tools.demo.random_weights FILE [sd1 | sdxl | controlnet]

In fp16, and ComfyUI's loaders take it for the real thing. `sd1`: a small UNet of SD1.x's family (its first level of 320
channels), the whole CLIP-L text encoder and the tiny autoencoder. `sdxl`: all levels of SDXL, each 320 wide, and both
its text encoders. `controlnet`: fits the UNet of `sd1`.
"""

import sys
from pathlib import Path

from ..server import in_process

COMMON = {"image_size": 32, "in_channels": 4, "model_channels": 320, "use_spatial_transformer": True, "legacy": False}
SD1 = COMMON | {
    "channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_middle": 1,
    "num_heads": 8, "context_dim": 768, "use_linear_in_transformer": False, "adm_in_channels": None,
}  # fmt: skip
SDXL = COMMON | {
    "channel_mult": [1, 1, 1], "num_res_blocks": [2, 2, 2], "transformer_depth": [0, 0, 2, 2, 10, 10],
    "transformer_depth_middle": 10, "num_head_channels": 64, "context_dim": 2048, "use_linear_in_transformer": True,
    "adm_in_channels": 2816, "num_classes": "sequential",
}  # fmt: skip


def make(path: Path, kind: str = "sd1") -> None:
    """Write the file whole or not at all."""
    in_process.load_host(cpu=True)
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(33)
    tensors = {
        prefix + name: _random(name, tensor).half().contiguous()
        for prefix, module in PARTS[kind]().items()
        for name, tensor in module.state_dict().items()
    }
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def _sd1() -> dict:
    import comfy.sd1_clip

    return {
        "model.diffusion_model.": _unet(SD1, [1, 1]),
        "cond_stage_model.transformer.": comfy.sd1_clip.SDClipModel(dtype=None).transformer,
        "first_stage_model.": _autoencoder(),
    }


def _sdxl() -> dict:
    import comfy.sdxl_clip

    clip = comfy.sdxl_clip.SDXLClipModel()
    return {
        "model.diffusion_model.": _unet(SDXL, [0, 0, 0, 2, 2, 2, 10, 10, 10]),
        "conditioner.embedders.0.transformer.": clip.clip_l.transformer,
        "conditioner.embedders.1.model.transformer.": clip.clip_g.transformer,
        "first_stage_model.": _autoencoder(),
    }


def _controlnet() -> dict:
    import comfy.cldm.cldm
    import comfy.ops

    return {"": comfy.cldm.cldm.ControlNet(**SD1, hint_channels=3, operations=comfy.ops.disable_weight_init)}


PARTS = {"sd1": _sd1, "sdxl": _sdxl, "controlnet": _controlnet}  # of each kind: the prefix of every module's weights


def _unet(config: dict, depth_output: list[int]):
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.ops

    operations = comfy.ops.disable_weight_init
    return openaimodel.UNetModel(**config, out_channels=4, transformer_depth_output=depth_output, operations=operations)


def _autoencoder():
    from comfy.taesd.taesd import TAESD

    return TAESD()


def _random(name: str, tensor):
    """Weights that keep activations near the same size from layer to layer."""
    import torch

    if not tensor.is_floating_point() or name.startswith("vae_"):
        return tensor.float()
    if tensor.shape == (3,):
        return torch.full((3,), 0.5)  # the decoder's last bias: grey, so that the picture does not drown in black
    if tensor.ndim < 2:
        return torch.ones(tensor.shape) if name.endswith("weight") else torch.zeros(tensor.shape)
    smooth = 0.1 if name == "out.2.weight" else 1  # an almost silent UNet: inversion works as with a trained one
    return smooth * torch.randn(tensor.shape) * tensor[0].numel() ** -0.5


if __name__ == "__main__":
    make(Path(sys.argv[1]), *sys.argv[2:])
