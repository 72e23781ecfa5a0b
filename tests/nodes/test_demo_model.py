"""The miniature model and its clips on the real host: everything a checkpoint's model does, and who refuses whom.

Nothing here needs the shipped weights to be good, only to be there.
"""

import comfy.controlnet
import comfy.model_patcher
import comfy.sd
import latent_preview
import pytest
import torch
from comfy_extras.nodes_canny import Canny

import nodes

from ..same import same
from .mini import caption, clip, inflate, invert, model, pack, run, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error
demo, controlnet = pack("nodes.host.demo_model"), pack("nodes.host.demo_controlnet")
clips, scenes, vocabulary = (pack(f"ei2_modules.demo.{name}") for name in ("clips", "scenes", "vocabulary"))
CAPTION = "a red circle moving on a blue background"
EDIT = "a striped green circle moving on a blue background"


@pytest.fixture(scope="module")
def loaded():
    """(MODEL, CLIP, VAE, CONTROL_NET)."""
    with torch.inference_mode():
        return run("demo_model.LoadDemoModel")


def encode(text_encoder, text):
    return nodes.CLIPTextEncode().encode(text_encoder, text)[0]


def demo_clip(**inputs):
    defaults = {"shape": "circle", "colour": "red", "background": "blue", "motion": "slide", "frames": 4}
    return run("demo_model.DemoClip", **(defaults | inputs))


@pytest.fixture(scope="module")
def latents(loaded):
    """The encoded demonstration clip, 4 frames."""
    with torch.inference_mode():
        return nodes.VAEEncode().encode(loaded[2], demo_clip()[0])[0]


def plain_sample(m, text_encoder, latent, steps=2):
    positive, negative = encode(text_encoder, CAPTION), encode(text_encoder, "")
    return nodes.common_ksampler(m, 1, steps, 5.0, "euler", "normal", positive, negative, latent)[0]["samples"]


# The loader


def test_it_is_what_checkpoint_and_controlnet_loaders_give(loaded):
    kinds = (comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE, comfy.controlnet.ControlNet)
    assert [isinstance(part, kind) for part, kind in zip(loaded, kinds, strict=True)] == [True] * 4


def state_dicts(loaded):
    m, text_encoder, vae, _ = loaded
    return m.model.diffusion_model.state_dict(), text_encoder.get_sd(), vae.get_sd()


def test_two_loads_are_equal_and_apart(loaded):
    again = run("demo_model.LoadDemoModel")
    for first, second in zip(state_dicts(loaded), state_dicts(again), strict=True):
        assert first.keys() == second.keys()
        assert same(first, second)
    assert again[0].model is not loaded[0].model


def test_the_unet_to_train_is_the_unet_that_is_loaded(loaded):
    trained, used = demo.new_unet().state_dict(), loaded[0].model.diffusion_model.state_dict()
    assert {name: t.shape for name, t in trained.items()} == {name: t.shape for name, t in used.items()}


def test_the_unet_to_train_starts_silent_and_computes_as_the_one_that_is_loaded(loaded):
    """With equal weights, tolerance 1e-5; fresh it gives zero."""
    m = run("demo_model.LoadDemoModel")[0]
    used, trained = m.model.diffusion_model, demo.new_unet()
    generator = torch.Generator().manual_seed(0)
    x, context = (torch.randn(shape, generator=generator) for shape in ((2, 8, 16, 16), (2, 24, 64)))
    t = torch.tensor([10.0, 900.0])
    assert torch.equal(trained(x, t, context=context), torch.zeros(2, 8, 16, 16))
    trained.load_state_dict(used.state_dict())
    torch.testing.assert_close(trained(x, t, context=context), used(x, t, context=context), rtol=0, atol=1e-5)


@pytest.mark.parametrize("load", ["load", "load_controlnet"])
def test_a_missing_file_is_said(monkeypatch, tmp_path, load):
    weights = pack("ei2_modules.demo.weights")
    original = getattr(weights, load)
    monkeypatch.setattr(weights, load, lambda: original(tmp_path / "model.safetensors"))
    with pytest.raises(EI2Error, match=r"cannot be read.*Install the pack again"):
        run("demo_model.LoadDemoModel")


def test_the_controlnet_to_train_is_the_one_that_is_loaded(loaded):
    trained = controlnet.new_controlnet(loaded[0].model.diffusion_model.state_dict()).state_dict()
    used = loaded[3].control_model.state_dict()
    assert {name: t.shape for name, t in trained.items()} == {name: t.shape for name, t in used.items()}


def test_the_controlnet_to_train_starts_silent_and_hears_the_edges(loaded):
    """What it adds is zero; what it would add, were its last layers open, depends on the edges."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = controlnet.new_controlnet(loaded[0].model.diffusion_model.state_dict())
    x, context = (torch.randn(shape, generator=generator) for shape in ((1, 8, 16, 16), (1, 24, 64)))
    hints = torch.zeros(2, 3, 128, 128)
    hints[1, :, 60:64] = 1

    def added():
        found = [net(x, hint[None], torch.tensor([500.0]), context) for hint in hints]
        return zip(*([*each["output"], *each["middle"]] for each in found), strict=True)

    assert all(a.abs().max() == b.abs().max() == 0 for a, b in added())
    for layer in (*net.zero_convs, net.middle_block_out):
        torch.nn.init.eye_(layer[0].weight[:, :, 0, 0])
    assert all((a - b).std() > 0.1 * a.std() for a, b in added())


def test_edges_say_where_the_shape_is(loaded):
    """The words do not: without the ControlNet it is drawn elsewhere."""
    m, text_encoder, _, net = loaded
    scene = scenes.Scene((scenes.Thing("circle", "yellow", x=0.3, y=0.68),), "blue")
    picture, mask = scenes.render([scene])
    edges = Canny.execute(picture, 0.2, 0.5).args[0]
    words = encode(text_encoder, "a yellow circle on a blue background"), encode(text_encoder, "")
    led = nodes.ControlNetApplyAdvanced().apply_controlnet(*words, net, edges, 1.0, 0.0, 1.0)
    empty = {"samples": torch.zeros(4, 8, 16, 16)}
    shares = []
    for positive, negative in (led, words):
        latent = nodes.common_ksampler(m, 3, 12, 5.0, "euler", "normal", positive, negative, empty)[0]
        drawn = nodes.VAEDecode().decode(loaded[2], latent)[0][..., 0] > 0.5
        shares.append(((drawn & (mask > 0.5)).sum() / (drawn | (mask > 0.5)).sum()).item())
    assert shares[0] > 0.8 > 0.5 > shares[1]


def test_the_preview_has_a_factor_for_every_channel(loaded):
    m, _, vae, _ = loaded
    latent_format = m.model.latent_format
    assert latent_format.latent_channels == vae.latent_channels == 8
    assert [len(row) for row in latent_format.latent_rgb_factors] == [3] * 8
    assert len(latent_format.latent_rgb_factors_bias) == 3
    previewer = latent_preview.Latent2RGBPreviewer(
        latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias
    )
    assert previewer.decode_latent_to_preview(torch.zeros(1, 8, 16, 16)).size == (16, 16)


# The host's own nodes


def test_text_is_encoded(loaded):
    ((context, options),) = encode(loaded[1], CAPTION)
    assert context.shape == (1, vocabulary.LENGTH, 64) and options["pooled_output"].shape == (1, 64)
    assert torch.isfinite(context).all()
    assert torch.equal(context, encode(loaded[1], f" {CAPTION.upper()}.")[0][0])
    assert not torch.equal(context, encode(loaded[1], EDIT)[0][0])


WEIGHTED = {
    "more": ("a (red:1.4) circle on a blue background", [2]),
    "less": ("a (red:0.6) circle on a blue background", [2]),
    "brackets alone": ("a (red) circle on a blue background", [2]),
    "several words": ("a (red circle:1.4) on a blue background", [2, 3]),
}


@pytest.mark.parametrize("case", WEIGHTED.values(), ids=WEIGHTED)
def test_weights_in_brackets_change_the_conditioning_of_those_words_alone(loaded, case):
    text, places = case
    plain = encode(loaded[1], "a red circle on a blue background")[0][0]
    changed = (plain != encode(loaded[1], text)[0][0]).any(dim=-1)[0]
    assert changed.nonzero().flatten().tolist() == places


def test_a_weight_of_one_changes_nothing(loaded):
    texts = ("a (red:1.0) circle on a blue background", "a red circle on a blue background")
    first, second = (encode(loaded[1], text)[0][0] for text in texts)
    assert torch.equal(first, second)


WRONG_TEXT = {
    "an unknown word": ("a red rabbit", "does not know 'rabbit'.*circle.*Stable Diffusion 1.x"),
    "an unknown weighted word": ("a (fluffy:1.2) circle", "does not know 'fluffy'"),
    "an embedding": ("embedding:easynegative", "does not know 'embedding:easynegative'"),
    "too many words": ("red " * 24, "24 words"),
    "too many words in brackets": ("(red red red red:1.2) " * 6, "24 words"),
}


@pytest.mark.parametrize("case", WRONG_TEXT.values(), ids=WRONG_TEXT)
def test_text_it_cannot_read_is_refused(loaded, case):
    text, message = case
    with pytest.raises(EI2Error, match=message):
        encode(loaded[1], text)


def test_skipping_clip_layers_is_harmless(loaded):
    skipping = nodes.CLIPSetLastLayer().set_last_layer(loaded[1], -2)[0]
    assert torch.equal(encode(skipping, CAPTION)[0][0], encode(loaded[1], CAPTION)[0][0])


def test_latents_are_a_quarter_of_the_pictures_and_come_back(loaded, latents):
    vae = loaded[2]
    assert latents["samples"].shape == (4, 8, 16, 16)
    images = nodes.VAEDecode().decode(vae, latents)[0]
    assert images.shape == (4, 64, 64, 3)
    assert images.min() >= 0 and images.max() <= 1
    alone = nodes.VAEEncode().encode(vae, demo_clip()[0][2:3])[0]["samples"]
    torch.testing.assert_close(alone, latents["samples"][2:3], rtol=0, atol=1e-4)


def test_tiled_decoding_has_the_right_size(loaded, latents):
    images = nodes.VAEDecodeTiled().decode(loaded[2], latents, 512, 64)[0]
    assert images.shape == (4, 64, 64, 3)


def test_sampling_from_an_empty_latent(loaded):
    """128x128 in the stock node is 16x16 latents on ComfyUI 0.3.75, and 64x64 pixels of this model."""
    m, text_encoder, vae, _ = loaded
    samples = plain_sample(m, text_encoder, {"samples": torch.zeros(2, 4, 16, 16)})
    assert samples.shape == (2, 8, 16, 16) and torch.isfinite(samples).all()
    assert nodes.VAEDecode().decode(vae, {"samples": samples})[0].shape == (2, 64, 64, 3)
    assert torch.equal(samples, plain_sample(m, text_encoder, {"samples": torch.zeros(2, 4, 16, 16)}))


# The pack's own nodes


@pytest.mark.parametrize("mode", ["EI²", "Tune-A-Video", "dense"])
def test_the_whole_way(loaded, latents, mode):
    m, text_encoder, vae, _ = loaded
    before = plain_sample(m, text_encoder, latents)
    source, edit = encode(text_encoder, CAPTION), encode(text_encoder, EDIT)
    tuned, weights, losses = tune(
        inflate(m, mode), latents, source, steps=2, vae=vae, negative=encode(text_encoder, "")
    )
    assert len(losses["loss"]) == 2 and weights.header.family == "EI2Demo"
    noise, report = invert(tuned, latents, source, steps=3, iterations=2, vae=vae)
    assert "4 frames, 3 steps" in report
    result = sample(tuned, noise, edit, encode(text_encoder, ""), cfg=5.0)
    assert result.shape == latents["samples"].shape and torch.isfinite(result).all()
    assert torch.equal(plain_sample(m, text_encoder, latents), before), "the model that came in is as it was"


@pytest.fixture(scope="module")
def both(loaded, latents):
    """Tuned weights of the miniature model, and of an SD1.x-shaped one."""
    with torch.inference_mode():
        return tune(inflate(loaded[0]), latents, encode(loaded[1], CAPTION), steps=1)[1], tune(
            inflate(model()), steps=1
        )[1]


def test_a_tuned_file_loads_again(loaded, both, tmp_path):
    files = pack("ei2_modules.inflation.weights")
    files.save(tmp_path / "demo.safetensors", both[0])
    again = files.load(tmp_path / "demo.safetensors")
    first, second = (inflate(loaded[0], weights=weights) for weights in (both[0], again))
    latent = {"samples": torch.zeros(2, 8, 16, 16)}
    assert torch.equal(plain_sample(first, loaded[1], latent), plain_sample(second, loaded[1], latent))


def test_tuned_weights_of_other_families_are_refused(loaded, both):
    ours, theirs = both
    with pytest.raises(EI2Error, match=r"EI2Demo model.*this model is SD15"):
        inflate(model(), weights=ours)
    with pytest.raises(EI2Error, match=r"SD15 model.*this model is EI2Demo"):
        inflate(loaded[0], weights=theirs)


def test_a_clip_or_a_caption_of_another_family_is_refused(loaded, latents):
    m = inflate(loaded[0])
    with pytest.raises(EI2Error, match=r"4 channels.*EI2Demo model takes 8"):
        tune(m, clip(), encode(loaded[1], CAPTION))
    with pytest.raises(EI2Error, match=r"8 channels.*SD15 model takes 4"):
        tune(inflate(model()), latents)
    with pytest.raises(EI2Error, match=r"768 wide.*EI2Demo model takes 64"):
        tune(m, latents, caption(width=768))


# The clip


@pytest.mark.parametrize("motion", clips.MOTIONS)
@pytest.mark.parametrize("frames", [1, 8])
def test_the_clip(motion, frames):
    images, words, masks = demo_clip(motion=motion, frames=frames)
    assert images.shape == (frames, 64, 64, 3) and masks.shape == (frames, 64, 64)
    for values in (images, masks):
        assert values.dtype == torch.float32 and values.min() >= 0 and values.max() <= 1
    assert masks.flatten(1).max(dim=1).values.min() > 0.9, "the shape is seen in every frame"
    assert words.startswith("a red circle moving") and "on a blue background" in words
    vocabulary.tokenize(words)


@pytest.mark.parametrize("shape", vocabulary.SHAPES)
@pytest.mark.parametrize("colour, background", [("orange", "white"), ("black", "orange")])
def test_the_clips_caption_says_what_was_chosen(shape, colour, background):
    _, words, _ = demo_clip(shape=shape, colour=colour, background=background)
    assert f"{colour} {shape}" in words and f"{background} background" in words
    vocabulary.tokenize(words)


def test_the_same_settings_give_the_same_clip():
    (first, _, _), (second, _, _) = demo_clip(), demo_clip()
    assert torch.equal(first, second)


def test_equal_colours_are_refused():
    with pytest.raises(EI2Error, match=r"both red.*Choose two"):
        demo_clip(background="red")


WRONG_CHOICES = [("shape", "hexagon"), ("colour", "pink"), ("background", "grey"), ("motion", "fly")]


@pytest.mark.parametrize("name, value", WRONG_CHOICES)
def test_wrong_choices_are_refused_before_the_run(name, value):
    node = pack("nodes.demo_model").DemoClip
    right = {"shape": "star", "colour": "red", "background": "blue", "motion": "arc"}
    assert node.validate_inputs(**right) is True
    assert f"{name} is {value!r}: it must be one of" in node.validate_inputs(**(right | {name: value}))
    assert node.validate_inputs(**(right | {name: None})) is True, "wired from another node"
