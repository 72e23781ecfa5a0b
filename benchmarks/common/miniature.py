"""A miniature SD1.x model of random weights (1 M numbers), conditioning and clip, for tests and benchmarks."""

import torch

from tools.server.in_process import host

model_base, model_management, model_patcher, supported_models = (
    host(f"comfy.{name}") for name in ("model_base", "model_management", "model_patcher", "supported_models")
)

CONTEXT = 64


def unet_config(**changes) -> dict:
    config = {
        "image_size": 32,
        "in_channels": 4,
        "out_channels": 4,
        "model_channels": 32,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_output": [1, 1, 1, 1],
        "transformer_depth_middle": 1,
        "use_spatial_transformer": True,
        "context_dim": CONTEXT,
        "legacy": False,
        "use_linear_in_transformer": False,
        "adm_in_channels": None,
        "num_heads": 4,
    }
    return config | changes


def model(
    prediction="eps", seed=0, scale=0.3, family=supported_models.SD15, stored=torch.float32, computes=torch.float32,
    **changes,
):  # fmt: skip
    """A ModelPatcher around random weights. A small `scale` of the last convolution makes its output smooth.

    stored: the type of its weights. computes: what it computes in.
    """
    config = family(unet_config(**changes))
    config.unet_config.update(unet_config(**changes))
    config.set_inference_dtype(torch.float32, None)
    prefix = {"v": "model_type"}.get(prediction)
    if prefix:
        config.model_type = lambda *a, **k: model_base.ModelType.V_PREDICTION
    base = config.get_model({}, device="cpu")
    _initialise(base.diffusion_model, seed, scale)
    if stored != torch.float32:
        config.set_inference_dtype(stored, computes)
        weights, base = base.diffusion_model.state_dict(), config.get_model({}, device="cpu")
        base.diffusion_model.load_state_dict(weights)
    device = model_management.get_torch_device()
    return model_patcher.ModelPatcher(base, load_device=device, offload_device=torch.device("cpu"))


def _initialise(unet, seed, scale) -> None:
    generator = torch.Generator().manual_seed(seed)
    for name, p in unet.named_parameters():
        if p.ndim > 1:
            p.copy_(torch.randn(p.shape, generator=generator) * p[0].numel() ** -0.5)
        else:
            p.fill_(1.0 if name.endswith("weight") else 0.0)
    unet.out[2].weight.mul_(scale)


def caption(seed=1, width=CONTEXT) -> list:
    """CONDITIONING."""
    return [[torch.randn(1, 77, width, generator=torch.Generator().manual_seed(seed)), {}]]


def clip(frames=3, height=8, width=8, channels=4, seed=2) -> dict:
    """LATENT of slowly changing frames."""
    generator = torch.Generator().manual_seed(seed)
    first, last = torch.randn(2, channels, height, width, generator=generator)
    t = torch.linspace(0, 1, max(frames, 1))[:frames].view(-1, 1, 1, 1)
    return {"samples": 5 * (first * (1 - t) + last * t)}
