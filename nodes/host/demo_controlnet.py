"""The miniature model's ControlNet for Canny edges, out of the host's own parts."""

import comfy.model_management
import comfy.ops
import torch
from comfy.cldm import cldm
from comfy.controlnet import ControlNet

from ...ei2_modules.demo import weights
from .demo_model import UNET, TrainableLayers

HINT_CHANNELS = 3
HINT_PIXELS = 8  # a latent's, of the picture of edges: the host's network halves it three times. Ours has 4, so the
#                  host doubles the edges' picture


def new_controlnet(unet: dict[str, torch.Tensor]) -> cldm.ControlNet:
    """To be trained: the UNet's way down, with what it adds at zero. unet: its state dict.

    The layers that read the edges begin so that these arrive as strong as the latents, the last one too, which
    is published at zero: with PyTorch's own start and that, nothing of the edges was learnt in 500 steps.
    """
    net = _network(TrainableLayers)
    net.load_state_dict(unet, strict=False)  # the way up has no place here, the hints come from nowhere
    for weight in (*net.zero_convs.parameters(), *net.middle_block_out.parameters()):
        torch.nn.init.zeros_(weight)
    for layer in net.input_hint_block:
        if hasattr(layer, "weight"):  # SiLU halves what is small
            torch.nn.init.normal_(layer.weight, std=2 / layer.weight[0].numel() ** 0.5)
            torch.nn.init.zeros_(layer.bias)
    return net


def load() -> ControlNet:
    """The shipped one, as Load ControlNet Model gives others. Raises EI2Error if its file cannot be read."""
    net = _network(comfy.ops.disable_weight_init)
    net.load_state_dict(weights.load_controlnet())
    return ControlNet(net.eval(), compression_ratio=HINT_PIXELS, load_device=comfy.model_management.get_torch_device())


def _network(operations) -> cldm.ControlNet:
    sizes = {name: size for name, size in UNET.items() if name not in ("out_channels", "transformer_depth_output")}
    return cldm.ControlNet(hint_channels=HINT_CHANNELS, operations=operations, **sizes)
