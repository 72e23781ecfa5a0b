"""Makes a checkpoint of Stable Diffusion 1.x's shape with random weights: pictures are noise, everything else is real.

    python tools/random_checkpoint.py FILE

A small UNet of SD1.x's family (its first level of 320 channels), the whole CLIP-L text encoder and the tiny
autoencoder, in fp16. ComfyUI's Load Checkpoint takes it for SD1.5.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import in_process

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": [1],
    "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1],
    "transformer_depth_middle": 1, "num_heads": 8, "context_dim": 768, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "adm_in_channels": None, "legacy": False,
}  # fmt: skip


def make(path: Path) -> None:
    """Write the checkpoint whole or not at all."""
    in_process.load_host(cpu=True)
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(33)
    parts = {
        "model.diffusion_model.": _unet(),
        "cond_stage_model.transformer.": _text_encoder(),
        "first_stage_model.": _autoencoder(),
    }
    tensors = {
        prefix + name: _random(name, tensor).half().contiguous()
        for prefix, module in parts.items()
        for name, tensor in module.state_dict().items()
    }
    part = path.with_suffix(".part")
    save_file(tensors, part)
    part.replace(path)


def _unet():
    import comfy.ldm.modules.diffusionmodules.openaimodel as openaimodel
    import comfy.ops

    return openaimodel.UNetModel(**UNET, operations=comfy.ops.disable_weight_init)


def _text_encoder():
    import comfy.sd1_clip

    return comfy.sd1_clip.SDClipModel(dtype=None).transformer


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
    make(Path(sys.argv[1]))
