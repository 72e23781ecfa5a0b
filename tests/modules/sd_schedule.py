"""Stable Diffusion's noise table, written out."""

import torch


def sd_sigmas(dtype=torch.float64):
    """Stable Diffusion's table: betas linear in their square root, 0.00085 to 0.012."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    abar = torch.cumprod(1 - betas, 0)
    return ((1 - abar) / abar).sqrt().to(dtype)
