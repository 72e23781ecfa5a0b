"""A LATENT that is to be a clip's frames: checked, and decoded."""

import torch

from ...ei2_modules.errors import EI2Error
from ...ei2_modules.inflation.unet_spec import UNetSpec


def clip_latents(latent: dict, spec: UNetSpec) -> torch.Tensor:
    """The samples of a clip, (n, c, h, w), in fp32: an older host samples in the type it is given.

    Raises EI2Error for anything a UNet of this kind cannot take.
    """
    samples = latent["samples"]
    if getattr(samples, "is_nested", False) or samples.ndim != 4:
        shape = "nested" if getattr(samples, "is_nested", False) else tuple(samples.shape)
        raise EI2Error(
            f"The latents have shape {shape}, but frames of an image model have 4 dimensions (frames, channels, "
            "height, width). Encode the clip with the VAE of the same checkpoint."
        )
    frames, channels, height, width = samples.shape
    if frames == 0:
        raise EI2Error("The latents hold 0 frames. Choose at least one frame of the clip.")
    if channels != spec.channels:
        raise EI2Error(
            f"The latents have {channels} channels, but this {spec.family} model takes {spec.channels}. "
            "Encode the clip with the VAE of the same checkpoint."
        )
    if height * width == 0 or not torch.isfinite(samples).all():
        raise EI2Error(
            f"The latents ({frames} frames of {width}x{height}) are empty or hold values that are not finite. "
            "Encode the clip again, with VAE precision fp32 (--fp32-vae) if frames come out black."
        )
    return samples.float()


def pixels(vae, samples: torch.Tensor) -> torch.Tensor:
    """Decoded frames, (n, h, w, 3) in 0..1 on the CPU."""
    images = vae.decode(samples)
    return images.reshape(-1, *images.shape[-3:]).clamp(0, 1).cpu()
