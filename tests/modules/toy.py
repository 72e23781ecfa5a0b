"""A toy UNet: just enough structure for tuning and its file."""

import torch
import torch.nn.functional as F

from ei2_modules.config import InflateOptions
from ei2_modules.inflation.unet_spec import Block, UNetSpec
from ei2_modules.tuning.trainables import Trainables

from .sd_schedule import sd_sigmas

SIGMAS = sd_sigmas(torch.float32)
DIM = 8


def spec(dims=(DIM, DIM), heads=2):
    blocks = tuple(Block(f"blocks.{i}", ("input", i), d, heads) for i, d in enumerate(dims))
    return UNetSpec("SD15", "eps", 16, 4, blocks)


def base(of):
    generator = torch.Generator().manual_seed(0)
    dims = {b.path: b.dim for b in of.blocks}
    return {p: torch.randn(dims[p[:-11]], dims[p[:-11]], generator=generator) / 8 for p in of.query_paths()}


def make(options=None, start=None):
    return Trainables(spec(), options or InflateOptions(stam_init="random"), base(spec()), start)


def denoiser(trainables):
    """Something differentiable that uses every trained tensor: x0 from noisy 4 x 2 x 4 latents."""

    def denoise(x, sigma, frames=None):
        h = (x / (1 + sigma[0] ** 2) ** 0.5).reshape(len(x), 4, DIM)
        for w in trainables.queries().values():
            h = h + 0.3 * torch.tanh(F.linear(h, w))
        for _, module in trainables.bank.items():
            h = module(h, len(x))
        return x - h.reshape(x.shape) * sigma[0]

    return denoise


def clip():
    return torch.randn(3, 4, 2, 4, generator=torch.Generator().manual_seed(5))
