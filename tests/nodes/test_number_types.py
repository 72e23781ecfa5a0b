"""Latents of every number type: whatever another pack stores them in, they are computed with in fp32."""

import pytest
import torch

from .mini import clip, custom_advanced, inflate, invert, model, run, sample

HALVES = [torch.float16, torch.bfloat16]
TYPES = [*HALVES, torch.float64]
ROUNDED = 4e-3  # relative: once, to the fewest bits


def stored(latent, dtype):
    return {**latent, "samples": latent["samples"].to(dtype)}


def far(a, b):
    return float((a - b).norm() / b.norm())


def by_sampler(m, latent):
    """SamplerCustomAdvanced at guidance 1."""
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    return custom_advanced(m, latent, sampler, sigmas, cfg=1.0)["samples"]


@pytest.fixture(scope="module")
def m():
    with torch.inference_mode():
        return inflate(model(scale=0.05))


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_a_clip_is_inverted_in_fp32(m, dtype):
    few = stored(clip(), dtype)
    noise, exact = invert(m, few)[0], invert(m, stored(few, torch.float32))[0]
    assert torch.equal(noise["samples"], exact["samples"]) and noise["samples"].dtype == torch.float32


@pytest.mark.parametrize("cfg", [1.0, 4.0])
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_noise_is_sampled_in_fp32(m, dtype, cfg):
    few = stored(invert(m)[0], dtype)
    assert torch.equal(sample(m, few, cfg=cfg), sample(m, stored(few, torch.float32), cfg=cfg))


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_the_sampler_for_stock_guiders_computes_in_fp32(m, dtype):
    """The host brings fp16 latents to the model's scale as they are; from there on nothing is lost."""
    few = stored(invert(m)[0], dtype)
    assert far(by_sampler(m, few), by_sampler(m, stored(few, torch.float32))) < ROUNDED
