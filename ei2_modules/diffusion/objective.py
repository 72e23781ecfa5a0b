"""The diffusion loss of one-shot tuning (paper section 3, eq. 2; velocity after Salimans & Ho)."""

import torch.nn.functional as F
from torch import Tensor

from .schedule import noise_direction, vp_scale


def add_noise(clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """VE units: x = z + sigma·eps. clean, noise: (n, c, h, w); sigma: scalar."""
    return clean + sigma * noise


def diffusion_loss(prediction: str, x: Tensor, denoised: Tensor, clean: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
    """Mean squared error over all elements, in fp32, of the noise ("eps") or velocity ("v") a model predicts.

    The model's own prediction is recovered from `denoised`: eps = (x - x0) / sigma, and with
    s = sqrt(1 + sigma²), alpha = 1/s, v = alpha·eps - (sigma/s)·x0, for prediction and truth alike.
    """
    eps = noise_direction(x.float(), denoised.float(), sigma)
    if prediction == "eps":
        return F.mse_loss(eps, noise.float())
    return F.mse_loss(velocity(eps, denoised.float(), sigma), velocity(noise.float(), clean.float(), sigma))


def velocity(eps: Tensor, clean: Tensor, sigma: Tensor) -> Tensor:
    """v = alpha·eps - sigma_vp·z."""
    return (eps - sigma * clean) / vp_scale(sigma).to(eps)
