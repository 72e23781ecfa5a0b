"""UNets of exactly SD1.5's and SDXL's shape with random weights: they cost what the trained ones cost."""

import torch

from tools.server.in_process import host

model_management, model_patcher, supported_models = (
    host(f"comfy.{name}") for name in ("model_management", "model_patcher", "supported_models")
)

SHARED = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "use_spatial_transformer": True,
    "legacy": False,
}  # fmt: skip
FAMILIES = {
    "sd15": (supported_models.SD15, {
        **SHARED, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4],
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0], "context_dim": 768,
        "use_linear_in_transformer": False, "adm_in_channels": None, "num_heads": 8,
    }),
    "sdxl": (supported_models.SDXL, {
        **SHARED, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 10, 10],
        "transformer_depth_middle": 10, "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "context_dim": 2048, "use_linear_in_transformer": True, "adm_in_channels": 2816, "num_classes": "sequential",
        "num_heads": -1, "num_head_channels": 64,
    }),
}  # fmt: skip


@torch.no_grad()
def model(dtype=torch.float32, family="sd15", width=320):
    """A ModelPatcher; weights are small random numbers, the same each time. width: of its first level."""
    kind, config = FAMILIES[family]
    config = config | {"model_channels": width}
    made = kind(config)
    made.unet_config.update(config)
    made.set_inference_dtype(dtype, None)
    base = made.get_model({}, device=model_management.unet_offload_device())
    generator = torch.Generator().manual_seed(0)
    for p in base.diffusion_model.parameters():  # drawn in fp32: a CPU draws other types much slower
        p.copy_(0.02 * torch.randn(p.shape, generator=generator)) if p.ndim > 1 else torch.nn.init.ones_(p)
    device = model_management.get_torch_device()
    return model_patcher.ModelPatcher(base, device, model_management.unet_offload_device())


def caption(family="sd15"):
    """CONDITIONING of 77 tokens."""
    generator = torch.Generator().manual_seed(1)
    embedding = torch.randn(1, 77, FAMILIES[family][1]["context_dim"], generator=generator)
    return [[embedding, {"pooled_output": torch.randn(1, 1280, generator=generator)} if family == "sdxl" else {}]]


def clip(frames: int, height: int, width: int):
    """LATENT of random frames, sizes in latent pixels."""
    return {"samples": torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(2))}
