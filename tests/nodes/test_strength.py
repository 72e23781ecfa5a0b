"""`strength`: an edit that begins part of the way down the inversion."""

import logging

import pytest
import torch

from .controlling import PROMPT, controls, edited, guider, prompt_edit
from .mini import caption, clip, custom_advanced, inflate, invert, model, pack, run, sample

EI2Error = pack("ei2_modules.errors").EI2Error
RECORD = pack("nodes.host.sampling.record").RECORD
STEPS = 4
SHARED = {"cross_share": 0.8, "self_share": 0.6}


@pytest.fixture(scope="module")
def ready():
    """(inflated model, the clip, its inverted latent)."""
    with torch.inference_mode():
        m, latents = inflate(model(scale=0.8)), clip()
        return m, latents, invert(m, latents, caption(1), steps=STEPS)[0]


def by_sampler(m, latent, strength, cfg, chosen=None):
    sampler, sigmas, begins = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0, strength=strength)
    given = chosen and guider(m, latent, chosen, cfg=cfg)
    return custom_advanced(m, begins, sampler, sigmas, cfg, given)["samples"]


def by_hand(m, latent, strength, cfg):
    """The host's own Euler steps from the inversion's latents."""
    import comfy.samplers

    way, left = latent[RECORD].trajectory, round(strength * STEPS)
    sigmas = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)[1][STEPS - left :]
    begins = {"samples": m.model.process_latent_out(way[left])}
    found = custom_advanced(m, begins, comfy.samplers.sampler_object("euler"), sigmas, cfg)["samples"]
    return found / (1 + sigmas[-1] ** 2).sqrt()  # the host's x at the last sigma, as a clean latent


def test_all_steps_are_the_edit_as_it_was(ready):
    m, _, latent = ready
    assert torch.equal(sample(m, latent, cfg=3.0, strength=1.0), sample(m, latent, cfg=3.0))


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.7])
def test_begins_at_the_latents_of_the_inversion(ready, strength):
    m, _, latent = ready
    mine = sample(m, latent, caption(), caption(3), 3.0, strength=strength)
    torch.testing.assert_close(mine, by_hand(m, latent, strength, 3.0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("chosen", [None, controls(**SHARED)], ids=["plain", "controlled"])
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_both_nodes_agree(ready, strength, chosen):
    m, _, latent = ready
    if chosen is None:
        mine = sample(m, latent, caption(), caption(3), 3.0, strength=strength)
    else:
        mine = edited(m, latent, chosen, strength=strength)
    assert torch.equal(mine, by_sampler(m, latent, strength, 3.0, chosen))


def test_less_strength_keeps_more(ready):
    m, latents, latent = ready
    off = [(sample(m, latent, cfg=5.0, strength=s) - latents["samples"]).abs().mean() for s in (0.25, 0.5, 0.75, 1.0)]
    assert off == sorted(off)
    assert off[0] < 0.5 * off[-1]


@pytest.mark.parametrize("way", [lambda *a: sample(*a, strength=0.1), lambda *a: by_sampler(*a, 0.0, 3.0)])
def test_without_a_step_the_clip_comes_back(ready, caplog, way):
    m, latents, latent = ready
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(way(m, latent), latents["samples"], atol=1e-5, rtol=1e-5)
    assert "leaves none" in caplog.text


def test_shares_are_of_the_whole_way(ready):
    """A control that has ended before the edit begins changes nothing."""
    m, _, latent = ready
    plain = edited(m, latent, strength=0.5)
    assert torch.equal(edited(m, latent, controls(cross_share=0.5, self_share=0.5), strength=0.5), plain)
    assert not torch.equal(edited(m, latent, controls(cross_share=0.75, self_share=0.5), strength=0.5), plain)


def test_a_mask_keeps_the_clip_outside(ready):
    m, latents, latent = ready
    mask = torch.zeros(1, 1, *latents["samples"].shape[-2:])
    mask[..., :4] = 1
    found = edited(m, {**latent, "noise_mask": mask}, strength=0.5, positive=PROMPT)
    torch.testing.assert_close(found[..., 4:], latents["samples"][..., 4:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(found[..., :4], latents["samples"][..., :4], atol=1e-2)


def test_noise_that_is_not_renewed_is_said(ready, caplog):
    m, _, latent = ready
    chosen = controls(prompt_edit(blend="red"), noise_share=1.0)
    with caplog.at_level(logging.WARNING):
        edited(m, latent, chosen)
        assert "old shape" not in caplog.text
        edited(m, latent, chosen, strength=0.5)
        assert "old shape" in caplog.text


def lost(latent):
    """After Save Latent, of a clip whose noise spreads as a real one's."""
    return {"samples": 3 * latent["samples"]}


BAD = {
    "no record": (lost, {"strength": 0.5, "steps": STEPS}, "Save Latent drops it"),
    "a frame of another": (
        lambda latent: {**latent, "samples": torch.cat([latent["samples"], latent["samples"][:1].flip(-1)])},
        {"strength": 0.5},
        "changed or joined later",
    ),
    "too much": (dict, {"strength": 1.5}, "strength is 1.5: it must be 0"),
    "below": (dict, {"strength": -0.1}, "strength is -0.1: it must be 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused(ready, case):
    m, _, latent = ready
    change, options, message = BAD[case]
    with pytest.raises(EI2Error, match=message):
        sample(m, change(latent), **options)
