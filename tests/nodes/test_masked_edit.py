"""A noise mask: inside it the clip is edited, outside it stays what it was, through both ways of sampling."""

import comfy_extras.nodes_custom_sampler as custom
import pytest
import torch

import nodes as host_nodes

from .mini import clip, custom_advanced, inflate, invert, model, pack, run, sample

EI2Error = pack("ei2_modules.errors").EI2Error
FRAMES, SIDE = 3, 8
GUIDANCE = 4.0


def half(frames=FRAMES):
    """The left half of every frame may change."""
    mask = torch.zeros(frames, SIDE * 8, SIDE * 8)
    mask[..., : SIDE * 4] = 1
    return mask


def moving():
    """One frame after the other may change, from the top down."""
    mask = torch.zeros(FRAMES, SIDE * 8, SIDE * 8)
    for i in range(FRAMES):
        mask[i, 16 * i : 16 * i + 16] = 1
    return mask


def masked(latent, mask):
    """The stock node Set Latent Noise Mask."""
    return host_nodes.SetLatentNoiseMask().set_mask(latent, mask)[0]


@pytest.fixture
def m():
    return inflate(model())


@pytest.fixture
def noise(m):
    return invert(m, clip(FRAMES))[0]


def edit(m, latent, **options):
    return sample(m, latent, cfg=GUIDANCE, **options)


MASKS = {"half": half(), "one for all frames": half(1), "moving": moving(), "soft": half() * 0.5, "nothing": half() * 0}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_the_source_stays_where_the_mask_is_zero(m, noise, mask):
    edited, source = edit(m, masked(noise, mask)), clip(FRAMES)["samples"]
    inside = torch.nn.functional.interpolate(mask[:, None], (SIDE, SIDE), mode="bilinear").expand_as(source) > 0
    torch.testing.assert_close(edited[~inside], source[~inside], rtol=0, atol=1e-5)
    if inside.any():
        assert (edited - source)[inside].abs().max() > 0.1


def test_a_mask_of_ones_changes_nothing(m, noise):
    assert torch.equal(edit(m, masked(noise, torch.ones(1, 64, 64))), edit(m, noise))


SHAPES = {
    "one picture": lambda mask: mask[0],
    "with channels": lambda mask: mask[:, None],
    "a video's": lambda mask: mask[None, None],
    "bool": lambda mask: mask.bool(),
    "uint8": lambda mask: mask.byte(),
    "fp16": lambda mask: mask.half(),
    "0 to 255": lambda mask: 255 * mask,
    "-1 to 1": lambda mask: 2 * mask - 1,
}


@pytest.mark.parametrize("made", SHAPES.values(), ids=SHAPES)
def test_masks_of_other_shapes_and_types(m, noise, made):
    assert torch.equal(edit(m, {**noise, "noise_mask": made(half())}), edit(m, masked(noise, half())))


def test_the_model_sees_the_source_of_every_step(m, noise, monkeypatch):
    """Not the clean clip, and not noise of our own: what the inversion went through."""
    seen, original = [], m.model.apply_model

    def spy(x, t, **kwargs):
        seen.append(x.clone())
        return original(x, t, **kwargs)

    monkeypatch.setattr(m.model, "apply_model", spy)
    sample(m, masked(noise, half()))
    trajectory = noise[pack("nodes.host.sampling.record").RECORD].trajectory
    assert len(seen) == len(trajectory) - 1
    for x, source in zip(seen, trajectory[:0:-1], strict=True):
        torch.testing.assert_close(x[..., SIDE // 2 :], source[..., SIDE // 2 :], rtol=0, atol=1e-5)


def by_sampler(m, latent, seed=0, eta=0.0):
    """SamplerCustomAdvanced with EI² DDIM Sampler."""
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=seed, eta=eta)
    return custom_advanced(m, latent, sampler, sigmas, GUIDANCE)["samples"]


@pytest.mark.parametrize("eta", [0.0, 0.5])
def test_the_samplers_agree(m, noise, eta):
    latent = masked(noise, moving())
    assert torch.equal(by_sampler(m, latent, 1, eta), edit(m, latent, seed=1, eta=eta))


@pytest.mark.parametrize("masks", [None, half()], ids=["without a mask", "masked"])
@pytest.mark.parametrize("step", [1, 3])
def test_a_part_of_the_steps_leaves_the_rest_to_another_sampler(m, noise, masks, step):
    """Split Sigmas: the first part hands on its leftover noise, and beside the mask the source with as much of it."""
    latent = noise if masks is None else masked(noise, masks)
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    whole = custom_advanced(m, latent, sampler, sigmas, GUIDANCE)["samples"]
    for part in custom.SplitSigmas.execute(sigmas, step).args:
        latent = custom_advanced(m, latent, sampler, part, GUIDANCE)
    torch.testing.assert_close(latent["samples"], whole, rtol=0, atol=1e-4)


@pytest.mark.parametrize("way", [edit, by_sampler])
def test_the_mask_may_be_set_before_the_inversion(m, noise, way):
    """It must not reach the noise that stock samplers take: they would mix it up with the clip."""
    before = invert(m, masked(clip(FRAMES), half()))[0]
    assert "noise_mask" not in before
    assert torch.equal(before["samples"], noise["samples"])
    assert torch.equal(way(m, before), way(m, masked(noise, half())))


def test_a_mask_set_later_comes_first(m, noise):
    before = invert(m, masked(clip(FRAMES), half()))[0]
    assert torch.equal(edit(m, masked(before, moving())), edit(m, masked(noise, moving())))


def test_the_inputs_stay_as_they_were(m):
    latents = {**clip(FRAMES), "noise_mask": half(), "batch_index": [0, 1, 2]}
    noise = invert(m, latents)[0]
    assert noise["batch_index"] == [0, 1, 2]
    assert set(latents) == {"samples", "noise_mask", "batch_index"}
    before = dict(noise)
    edit(m, noise)
    assert noise == before


def test_long_clips_are_masked_across_windows():
    m = inflate(model(scale=0.05))
    noise = invert(m, clip(20), steps=3)[0]
    edited = edit(m, masked(noise, half(1)))
    torch.testing.assert_close(edited[..., SIDE // 2 :], clip(20)["samples"][..., SIDE // 2 :], rtol=0, atol=1e-5)


def lost(latent):
    return {"samples": 10 * latent["samples"], "noise_mask": half()}  # as wide as real noise


def cut(latent):
    return host_nodes.LatentFromBatch().frombatch(latent, 1, 2)[0]


@pytest.mark.parametrize("way", [edit, by_sampler])
@pytest.mark.parametrize("order", ["mask, inversion, cut", "inversion, mask, cut", "inversion, cut, mask"])
def test_a_cut_keeps_its_own_frames_and_masks(m, noise, way, order):
    latents = {
        "mask, inversion, cut": lambda: cut(invert(m, masked(clip(FRAMES), moving()))[0]),
        "inversion, mask, cut": lambda: cut(masked(noise, moving())),
        "inversion, cut, mask": lambda: masked(cut(noise), moving()[1:]),
    }
    edited, source = way(m, latents[order]()), clip(FRAMES)["samples"][1:]
    outside = torch.nn.functional.interpolate(moving()[1:, None], (SIDE, SIDE), mode="bilinear").expand_as(source) == 0
    torch.testing.assert_close(edited[outside], source[outside], rtol=0, atol=1e-5)
    assert (edited - source)[~outside].abs().max() > 0.1


def longer(latent):
    return {**latent, "samples": torch.cat([latent["samples"], 2 * latent["samples"][:1]])}


REFUSED = {
    "too few masks": (lambda latent: masked(latent, half(2)), {}, "mask has 2 frames and the clip 3"),
    "the record is lost": (lost, {"steps": 5}, "its record of the clip is lost"),
    "one mask too many": (lambda latent: masked(cut(latent), half(3)), {}, "mask has 3 frames and the clip 2"),
    "no numbers": (lambda latent: masked(latent, half(1) / 0), {}, r"noise mask of shape .* not finite"),
    "a frame from elsewhere": (lambda latent: masked(longer(latent), half(1)), {}, "Frames 4 of .* not inverted with"),
}


@pytest.mark.parametrize(("make", "options", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(m, noise, make, options, message):
    with pytest.raises(EI2Error, match=message):
        edit(m, make(noise), **options)
