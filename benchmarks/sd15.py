"""A UNet of exactly SD1.5's shape with random weights: it costs what the trained one costs."""

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch

CONFIG = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "num_res_blocks": [2, 2, 2, 2],
    "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "transformer_depth_middle": 1,
    "use_spatial_transformer": True, "context_dim": 768, "legacy": False, "use_linear_in_transformer": False,
    "adm_in_channels": None, "num_heads": 8,
}  # fmt: skip


def model(dtype=torch.float32):
    """A ModelPatcher; weights are small random numbers, the same each time."""
    config = comfy.supported_models.SD15(dict(CONFIG))
    config.unet_config.update(CONFIG)
    config.set_inference_dtype(dtype, None)
    base = config.get_model({}, device=comfy.model_management.unet_offload_device())
    torch.manual_seed(0)
    for p in base.diffusion_model.parameters():
        torch.nn.init.normal_(p, std=0.02) if p.ndim > 1 else torch.nn.init.ones_(p)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(base, device, comfy.model_management.unet_offload_device())


def caption():
    """CONDITIONING of 77 tokens."""
    return [[torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(1)), {}]]


def clip(frames: int, height: int, width: int):
    """LATENT of random frames, sizes in latent pixels."""
    return {"samples": torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(2))}
