"""Atlas Key Frames, Edit Key Frames, Aggregate Key Frames and Render Atlas on the real host, with a miniature model."""

import re
from types import SimpleNamespace

import comfy.model_management
import comfy.sample
import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tools.server.in_process import pack

from ..same import same
from .atlases import fitted, watched_bar
from .mini import caption, controlnet, inflate, model, plain_sample, run
from .test_families import FAMILIES, text

EI2Error = pack("ei2_modules.errors").EI2Error
edit_run, structure, folder = (pack(f"nodes.host.atlas.{name}") for name in ("edit_run", "structure", "folder"))
KeyFrames = pack("ei2_modules.atlas.key_frames").KeyFrames


class Autoencoder:
    """4 channels, 8 pixels a latent, and no weights: what a VAE of the host is to a node."""

    def encode(self, images):
        pictures = F.avg_pool2d(images.movedim(-1, 1)[:, :3].float(), 8) * 2 - 1
        return torch.cat([pictures, pictures.mean(1, keepdim=True)], 1)

    def decode(self, latents):
        return F.interpolate(latents[:, :3] / 2 + 0.5, scale_factor=8, mode="bilinear").movedim(1, -1)


@pytest.fixture(scope="module")
def clip():
    return fitted()


def chosen(clip, **change):
    given = {"atlas": clip.atlas, "images": clip.images, "layer": "foreground", "count": 3, "frames": "0, 2, 3"}
    return run("key_frames.AtlasKeyFrames", **(given | change))


def edit(clip, m=None, keys=None, **change):
    given = {
        "model": m or model(), "positive": caption(), "negative": caption(3), "vae": Autoencoder(), "atlas": clip.atlas,
        "key_frames": keys or KeyFrames(0, (0, 2, 3)), "images": clip.images, "way": edit_run.PROPAGATED,
        "start": "noise", "seed": 7, "steps": 3, "cfg": 1.0, "denoise": 0.8, "resolution": 64,
    }  # fmt: skip
    return run("edit_key_frames.EditKeyFrames", **(given | change))


def aggregate(clip, edited, keys=None, **change):
    given = {
        "atlas": clip.atlas,
        "key_frames": keys or KeyFrames(0, (0, 2, 3)),
        "edited": edited,
        "images": clip.images,
    }
    return run("aggregate_atlas.AggregateAtlas", **(given | {"method": "matched mean"} | change))


@pytest.fixture
def calls(monkeypatch):
    """What the host's sampler is asked for, call by call."""
    asked, real = [], comfy.sample.sample_custom

    def watched(model, noise, cfg, sampler, sigmas, positive, negative, latent, **options):
        asked.append(
            SimpleNamespace(noise=noise, sigmas=sigmas, latent=latent, positive=positive, seed=options["seed"])
        )
        return real(model, noise, cfg, sampler, sigmas, positive, negative, latent, **options)

    monkeypatch.setattr(edit_run.comfy.sample, "sample_custom", watched)
    return asked


def test_key_frames_are_found_and_named(clip):
    keys, images, mask, report = chosen(clip, frames="", count=2)
    assert keys.layer == 0 and list(keys.frames) == sorted(keys.frames) and len(keys.frames) in (1, 2)
    assert torch.equal(images, clip.images[list(keys.frames)])
    assert ((mask > 0.5) == (clip.alpha[list(keys.frames)] > 0.5)).float().mean() > 0.95
    assert f"key frames {', '.join(map(str, keys.frames))}: " in report and "shows" in report
    keys, images, *_, report = chosen(clip, frames="3, 1", layer="background")
    assert keys == KeyFrames(1, (3, 1)) and torch.equal(images, clip.images[[3, 1]]) and "frame 1 adds" in report


def test_the_edit_stays_on_the_layer(clip):
    edited, report = edit(clip)
    source, alpha = clip.images[[0, 2, 3]], clip.atlas.alpha([0, 2, 3], 0)[:, 0]
    assert edited.shape == source.shape and edited.isfinite().all()
    assert torch.equal(edited[:, 0, 0], source[:, 0, 0])  # outside the windows
    differs = (edited - source).abs().mean(-1)
    assert differs[alpha < 0.1].mean() < 0.1 * differs[alpha > 0.9].mean() > 0.01
    assert "inter-frame propagation, the first from noise" in report and "frame 2: 2 steps from sigma " in report


WAYS = {  # way, start -> which of three key frames begin with a picture, and the seeds
    (edit_run.PROPAGATED, "noise"): ([0, 1, 1], [7, 8, 9]),
    (edit_run.SEQUENTIAL, "noise"): ([0, 1, 1], [7, 8, 9]),
    (edit_run.SAME_NOISE, "noise"): ([0, 0, 0], [7, 7, 7]),
    (edit_run.INDEPENDENT, "noise"): ([0, 0, 0], [7, 8, 9]),
    (edit_run.PROPAGATED, "source"): ([1, 1, 1], [7, 8, 9]),
    (edit_run.INDEPENDENT, "source"): ([1, 1, 1], [7, 8, 9]),
}


@pytest.mark.parametrize(("way", "start"), WAYS)
def test_ways(clip, calls, way, start):
    edit(clip, way=way, start=start)
    pictures, seeds = WAYS[way, start]
    assert [bool(call.latent.any()) for call in calls] == [bool(p) for p in pictures]
    assert [call.seed for call in calls] == seeds
    assert [len(call.sigmas) - 1 for call in calls] == [2 if p else 3 for p in pictures]
    assert torch.equal(calls[0].noise, calls[1].noise) == (way == edit_run.SAME_NOISE)


def test_same_seed_same_key_frames(clip):
    edited, _ = edit(clip)
    assert torch.equal(edited, edit(clip)[0]) and not torch.equal(edited, edit(clip, seed=8)[0])


def test_what_a_later_key_frame_begins_with(clip, calls):
    """The one before it, cut where the object is now; sequentially, where it was."""
    found = {}
    for way in (edit_run.PROPAGATED, edit_run.SEQUENTIAL):
        calls.clear()
        edited, _ = edit(clip, way=way)
        found[way] = calls[1].latent, edited[0].movedim(-1, 0)
    alphas = [clip.atlas.alpha([t], 0)[0] for t in (0, 2)]
    crops = pack("ei2_modules.atlas.crops").Crops.around(clip.atlas.alpha([0, 2, 3], 0), 64)
    latent, first = found[edit_run.SEQUENTIAL]
    torch.testing.assert_close(latent, Autoencoder().encode(crops.cut(0, first * alphas[0]).movedim(1, -1)))
    latent, first = found[edit_run.PROPAGATED]
    moved = pack("ei2_modules.atlas.propagate").propagated(clip.atlas, 0, 0, first, 2)
    torch.testing.assert_close(latent, Autoencoder().encode(crops.cut(1, moved * alphas[1]).movedim(1, -1)))


def test_the_noise_is_that_of_the_first_step(clip, calls):
    """The released code noises to one timestep and begins at another, with 1.25 times too much."""
    seen, m = [], model()

    def watched(apply_model, options):
        seen.append((options["input"].clone(), options["timestep"].clone()))
        return apply_model(options["input"], options["timestep"], **options["c"])

    m.set_model_unet_function_wrapper(watched)
    edit(clip, m, steps=20, keys=KeyFrames(0, (0, 2)))
    first_of_second = seen[20]
    sigma, sampling = float(calls[1].sigmas[0]), m.get_model_object("model_sampling")
    assert len(calls[1].sigmas) == 17 and float(sampling.timestep(calls[1].sigmas[0])) == 751
    scaled = m.model.process_latent_in(calls[1].latent) + sigma * calls[1].noise
    torch.testing.assert_close(first_of_second[0].cpu(), scaled, rtol=1e-4, atol=1e-4)
    assert float(sampling.timestep(first_of_second[1].cpu())[0]) == 751


def test_a_controlnet_sees_the_edges_and_those_before_it_stay(clip, calls):
    net, before = controlnet(0), controlnet(1)
    positive = [[caption()[0][0], {"control": before.set_cond_hint(torch.rand(1, 3, 64, 64))}]]
    plain, _ = edit(clip)
    calls.clear()
    edited, _ = edit(clip, control_net=net, canny_low=20, canny_high=40)
    assert not torch.equal(edited, plain)
    control = calls[0].positive[0][1]["control"]
    assert control is not net and net.cond_hint_original is None and control.cond_hint_original.shape == (1, 3, 64, 64)
    edges = control.cond_hint_original
    assert set(edges.unique().tolist()) == {0.0, 1.0} and 0.01 < edges.mean() < 0.5
    calls.clear()
    edit(clip, control_net=net, positive=positive)
    assert calls[0].positive[0][1]["control"].previous_controlnet is before and positive[0][1]["control"] is before
    assert torch.equal(edit(clip, control_net=net, control_strength=0.0)[0], plain)


def test_an_inflated_model_edits_all_at_once(clip, calls):
    edited, report = edit(clip, inflate(model()), way=edit_run.JOINT)
    assert [call.noise.shape[0] for call in calls] == [3] and edited.shape[0] == 3
    assert not torch.equal(calls[0].noise[0], calls[0].noise[1])
    assert "frames 0, 2, 3: 3 steps" in report


def test_the_background_is_edited_behind_the_object(clip, calls):
    edited, _ = edit(clip, keys=KeyFrames(1, (0, 2)), start="source")
    alpha = clip.atlas.alpha([0, 2], 0)[:, 0]
    differs = (edited - clip.images[[0, 2]]).abs().mean(-1)
    assert differs[alpha > 0.9].mean() < 0.1 * differs[alpha < 0.1].mean() > 0.002
    assert calls[0].latent.amin(1).mean() > -0.9  # no black hole where the object is


def test_the_demo_model_edits_too(clip):
    drawer, encoder, vae = run("demo_model.LoadDemoModel")[:3]
    words = encoder.encode_from_tokens_scheduled(encoder.tokenize("a red circle"))
    edited, _ = edit(clip, drawer, positive=words, negative=words, vae=vae, steps=2)
    assert edited.isfinite().all() and edited.shape == clip.images[[0, 2, 3]].shape


@pytest.mark.parametrize("name", ["SD1, v", "SD2", "SDXL"])
def test_families(clip, name):
    m = model(scale=0.05, **FAMILIES[name])
    edited, _ = edit(clip, m, KeyFrames(0, (0, 2)), positive=text(), negative=text(3), cfg=2.0)
    assert edited.isfinite().all() and not torch.equal(edited, clip.images[[0, 2]])


def test_the_model_is_untouched_also_after_a_cancel(clip, monkeypatch, folders):
    m = model()
    before = plain_sample(m)
    edit(clip, m, control_net=controlnet())
    assert same(plain_sample(m), before)
    stopped(clip, monkeypatch, m, at=5)
    monkeypatch.undo()
    assert same(plain_sample(m), before)


def stopped(clip, monkeypatch, m=None, at=5):
    count = []

    def interrupt():
        count.append(0)
        if len(count) == at:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(edit_run.Progress, "callback", lambda self: lambda *args: interrupt())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        edit(clip, m)


@pytest.mark.parametrize(("at", "kept"), [(2, 0), (5, 1), (7, 2)])
def test_a_stopped_edit_keeps_what_is_done(clip, monkeypatch, folders, at, kept):
    said = []
    monkeypatch.setattr(edit_run, "say", said.append)
    stopped(clip, monkeypatch, at=at)
    files = sorted(folder.directory().glob("*.png"))
    assert [f.name for f in files] == [f"unfinished_key_frame_{k:05}_.png" for k in range(1, kept + 1)]
    assert bool(said) == bool(kept)
    if kept:
        assert f"{kept} of 3 key frames were done" in said[0] and files[-1].name in said[0]
        assert said[0].endswith(f"Atlas Key Frames: {', '.join(['0', '2', '3'][:kept])}.")
        assert Image.open(files[0]).size == (64, 40)


def test_progress_has_pictures(clip, monkeypatch):
    moves = watched_bar(monkeypatch)
    edit(clip)
    shown = [(value, total, size[0]) for value, total, size in moves if size]
    assert moves[-1][:2] == (7, 7) and shown == [(3, 7, 512), (5, 7, 512), (7, 7, 512)]


def test_edited_key_frames_become_the_clips(clip):
    """By hand: the object inverted in the key frames is inverted in all frames."""
    inverted = torch.lerp(clip.images, 1 - clip.images, clip.alpha[..., None])
    edited, picture, mask, report = aggregate(clip, inverted[[0, 2, 3]])
    (drawn,) = run("aggregate_atlas.RenderAtlas", atlas=edited, images=clip.images)
    own = clip.alpha > 0.95
    assert (drawn - inverted)[own].abs().mean() < 0.25 * (clip.images - inverted)[own].abs().mean()
    assert picture.shape[1:3] == mask.shape[1:] and set(mask.unique().tolist()) == {0.0, 1.0}
    assert "3 key frames show " in report and "by matched mean" in report
    outside = clip.atlas.alpha(range(4), 0)[:, 0] < 0.02
    assert (drawn - clip.images)[outside].abs().max() < 0.02 and torch.equal(drawn[:, 0], clip.images[:, 0])
    assert clip.atlas.layers[0].edited is None


def test_what_was_not_edited_is_said(clip):
    edited, *_, report = aggregate(clip, clip.images[[0, 2, 3]])
    assert "Nothing is edited" in report
    (drawn,) = run("aggregate_atlas.RenderAtlas", atlas=edited, images=clip.images)
    assert torch.equal(drawn, clip.images)


def test_the_network_trains_inside_a_node(clip, monkeypatch):
    refine, aggregated = pack("ei2_modules.atlas.refine"), pack("ei2_modules.atlas.aggregate")
    monkeypatch.setattr(aggregated, "refined", lambda *given: refine.refined(*given, epochs=60))
    noisy = (clip.images[[0, 2, 3]] + 0.2 * torch.randn(3, 40, 64, 3)).clamp(0, 1)
    *_, report = aggregate(clip, noisy, method="network")
    before, after = (float(report.partition("L1 of the key frames ")[2].split()[i]) for i in (0, 3))
    assert after < before


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (lambda c: chosen(c, images=c.images[:3]), "fitted to another clip .4 frames of 64x40.; got 3 frames"),
        (lambda c: chosen(c, layer="foreground 2"), "no layer 'foreground 2'"),
        (lambda c: chosen(c, frames="0, 4"), "4 cannot be one. Give numbers from 0 to 3"),
        (lambda c: edit(c, images=c.images.flip(1)), "differ from it in their pixels"),
        (lambda c: edit(c, keys=KeyFrames(0, (0, 9))), "chosen for another atlas: this one has 4 frames and 2 layers"),
        (lambda c: edit(c, inflate(model())), "inflated by EI².* Choose 'jointly by EI²'"),
        (lambda c: edit(c, way=edit_run.JOINT), "needs a model that went through Inflate UNet to EI²"),
        (lambda c: edit(c, model(**FAMILIES["SD1 inpainting"])), "This is an inpainting model.* .9 channels for 4."),
        (lambda c: edit(c, model(**FAMILIES["SD1 InstructPix2Pix"])), "sees a picture besides the latents"),
        (lambda c: edit(c, positive=[]), "The positive conditioning is empty"),
        (lambda c: edit(c, positive=caption(width=32)), "32 wide, but this SD15 model takes 64"),
        (lambda c: edit(c, denoise=0.1), "denoise 0.1 of 3 steps is less than one step. Take at least 0.34"),
        (lambda c: edit(c, control_net=controlnet(), canny_low=200), "canny_low 200 must be less than canny_high 200"),
        (lambda c: edit(c, vae=run("demo_model.LoadDemoModel")[2]), "8 channels, but this SD15 model takes 4"),
        (lambda c: aggregate(c, c.images), "Got 4 edited pictures for 3 key frames"),
        (lambda c: aggregate(c, c.images[:3, :, :40]), "edited key frames are 40x40, the clip is 64x40"),
        (
            lambda c: aggregate(c, c.images[:3] * torch.tensor([1, 1, torch.nan]).view(3, 1, 1, 1)),
            "1 of 3 .* not finite",
        ),
        (lambda c: run("aggregate_atlas.RenderAtlas", atlas=c.atlas, images=c.images[:2]), "another clip"),
    ],
)
def test_bad_input_is_refused(clip, attempt, message):
    with pytest.raises(EI2Error, match=message):
        attempt(clip)


@pytest.mark.parametrize("steps", [3, 7, 12, 20, 500])
def test_the_denoise_that_a_refusal_names_is_enough(clip, steps):
    with pytest.raises(EI2Error) as refused:
        edit(clip, steps=steps, denoise=0.9 / steps)
    named = float(re.search(r"Take at least ([\d.]+)", str(refused.value))[1])
    options = edit_run.EditOptions(edit_run.PROPAGATED, "noise", 0, steps, 1.0, named, 64)
    assert options.denoising(steps) >= 1


def test_choices_are_checked():
    found = {"way": "edit_key_frames.EditKeyFrames", "method": "aggregate_atlas.AggregateAtlas"}
    found["layer"] = "key_frames.AtlasKeyFrames"
    for name, place in found.items():
        module, node = place.split(".")
        node = getattr(pack(f"nodes.{module}"), node)
        choices = next(item.options for item in node.define_schema().inputs if item.id == name)
        assert all(node.validate_inputs(**{name: choice}) is True for choice in choices)
        assert "must be one of" in node.validate_inputs(**{name: "x"})
