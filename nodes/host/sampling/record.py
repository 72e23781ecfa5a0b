"""The record that an inverted LATENT carries: how it was made, what it was then, and the way there."""

import hashlib
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ....ei2_modules.errors import EI2Error
from ....ei2_modules.files.fingerprint import Fingerprint
from ....ei2_modules.inflation.unet_spec import UNetSpec
from ..latents import clip_latents
from .trajectory import Trajectory

MASK = "noise_mask"  # the host's key in the LATENT dict
RECORD = "ei2_inversion"  # ours, beside it


@dataclass(frozen=True)
class Inversion:
    """How an inverted latent was made."""

    steps: int
    sigma_end: float
    prediction: str
    fingerprint: Fingerprint
    trajectory: Trajectory = field(compare=False, repr=False)
    mask: Tensor | None = field(default=None, compare=False, repr=False)  # that the clip came with
    checksums: list[bytes] = field(default_factory=list, repr=False)  # of the frames of the noise
    text: bytes | None = field(default=None, repr=False)  # checksum of what it was inverted under


def with_inversion(latent: dict, samples: Tensor, inversion: Inversion) -> dict:
    """A new LATENT dict of inverted noise. A noise mask moves into the record: stock samplers would misread it."""
    inversion = replace(inversion, mask=latent.get(MASK), checksums=checksums(samples))
    return {**{k: v for k, v in latent.items() if k != MASK}, "samples": samples, RECORD: inversion}


def clean_clip(latent: dict, spec: UNetSpec, node: str) -> Tensor:
    """The samples of a clip, (n, c, h, w). Raises EI2Error for what a UNet cannot take, and for inverted noise."""
    samples, inversion = clip_latents(latent, spec), latent.get(RECORD)
    if inversion is not None and not set(checksums(samples)).isdisjoint(inversion.checksums):
        raise EI2Error(
            f"The latents are inverted noise ({inversion.steps} steps, up to sigma {inversion.sigma_end:.2f}), but "
            f"{node} takes the clip itself. Wire the latent of VAE Encode here."
        )
    return samples


def checksums(samples: Tensor) -> list[bytes]:
    """Of every frame, (n, c, h, w) in fp32. Against accidents, not against forgery."""
    frames = samples.to("cpu", torch.float32).contiguous()
    return [hashlib.blake2b(frame.numpy(), digest_size=16).digest() for frame in frames]
