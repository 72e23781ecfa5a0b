"""Inversion and sampling on the real host, and the two ways back: our node and the stock samplers."""

import copy
import re

import comfy.controlnet
import comfy.samplers
import pytest
import torch
from PIL import Image

import nodes

from .mini import caption, clip, custom_advanced, inflate, invert, model, pack, run, sample


def smooth(prediction="eps"):
    return inflate(model(prediction, scale=0.05))


def psnr(a, b):
    return float(10 * torch.log10((b.max() - b.min()) ** 2 / (a - b).square().mean()))


@pytest.mark.parametrize("prediction, frames", [("eps", 3), ("v", 1)])
def test_five_iterations_reconstruct_better_than_50_db(prediction, frames):
    m, latents = smooth(prediction), clip(frames)
    noise, report = invert(m, latents, steps=50, iterations=5)
    assert psnr(sample(m, noise), latents["samples"]) > 50
    assert "converged at every step" in report
    assert "the plain rule's" in report
    assert f"{frames} frames, 50 steps, sigma 13.12" in report


@pytest.mark.parametrize(
    ("stored", "decibels"),
    [(torch.float16, 50), (torch.bfloat16, 35), (torch.float8_e4m3fn, 15), (torch.float8_e5m2, 10)],
    ids=str,
)
def test_weights_stored_in_fewer_bits(stored, decibels):
    """As close to fp32 as their rounding lets them; none of it is kept in fp32."""
    full, few = smooth(), inflate(model(scale=0.05, stored=stored))
    results = [sample(m, invert(m, steps=10)[0], cfg=2.0) for m in (full, few)]
    assert few.model.diffusion_model.out[2].weight.dtype == stored
    assert psnr(*results) > decibels
    assert not torch.equal(*results)


def test_plain_rule_is_worse():
    m = smooth()
    plain = sample(m, invert(m, steps=20)[0])
    fixed = sample(m, invert(m, steps=20, iterations=5)[0])
    assert psnr(plain, clip()["samples"]) + 10 < psnr(fixed, clip()["samples"])


def test_no_convergence_is_said():
    _, report = invert(inflate(model(scale=60.0)), steps=5, iterations=3)
    assert "WARNING" in report
    assert "did not converge" in report


def test_report_in_pixels_with_a_vae():
    class Fake:
        def decode(self, samples):
            return samples[:, :3].movedim(1, -1)

    assert "pixels" in invert(smooth(), steps=3, vae=Fake())[1]


def test_a_vae_that_fails_leaves_the_inversion():
    class Fails:
        def decode(self, samples):
            raise RuntimeError("expected 16 channels")

    model = smooth()
    noise, report = invert(model, steps=3, vae=Fails())
    assert torch.equal(noise["samples"], invert(model, steps=3)[0]["samples"])
    assert "pixels: not measurable" in report
    assert "WARNING: the VAE could not decode the round trip (RuntimeError: expected 16 channels)" in report


def test_inversion_asks_the_model_once_a_step_at_the_published_timesteps(monkeypatch):
    m, asked = smooth(), []
    original = m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda x, t, **k: asked.append(t[0].item()) or original(x, t, **k))
    table = m.get_model_object("model_sampling").sigmas
    sampling, schedule = (
        pack("nodes.host.sampling.run"),
        pack("ei2_modules.diffusion.schedule").ddim_schedule(table, 50),
    )
    sampling.invert(m, clip()["samples"], caption(), schedule, 0, lambda *a: None)
    expected = [float(table[t]) for t in range(1, 982, 20)]
    assert asked == pytest.approx(expected)


def test_sampling_asks_the_model_once_a_step_with_cond_and_uncond_together(monkeypatch):
    m = smooth()
    noise, _ = invert(m, steps=4)
    rows, original = [], m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda x, t, **k: rows.append(len(x)) or original(x, t, **k))
    sample(m, noise, cfg=7.5)
    assert rows == [2 * 3] * 4


def test_input_latent_is_not_changed_and_other_entries_stay():
    latents = clip() | {"batch_index": [0, 1, 2]}
    noise, _ = invert(smooth(), latents, steps=3)
    assert torch.equal(latents["samples"], clip()["samples"])
    assert noise["batch_index"] == [0, 1, 2]


def test_same_inputs_same_result():
    m = smooth()
    a, b = (invert(m, steps=4)[0]["samples"] for _ in range(2))
    assert torch.equal(a, b)


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_sampler_level_path_is_bit_identical(eta, prediction):
    """EI² DDIM Sampler through SamplerCustomAdvanced: tolerance 0."""
    m = smooth(prediction)
    noise, _ = invert(m, steps=5)
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=noise, seed=4, eta=eta)
    assert torch.equal(
        custom_advanced(m, noise, sampler, sigmas)["samples"], sample(m, noise, cfg=3.0, seed=4, eta=eta)
    )


def test_stock_euler_differs_by_the_scale_at_abar_0_alone():
    """Same sigmas, stock euler: the VE latent at abar_0, which is ours times sqrt(1 + sigma_0²) = 1.000425."""
    m = smooth()
    noise, _ = invert(m, steps=5)
    _, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=noise, seed=0, eta=0.0)
    stock = custom_advanced(m, noise, comfy.samplers.sampler_object("euler"), sigmas)["samples"]
    scale = float((1 + sigmas[-1] ** 2).sqrt())
    assert scale == pytest.approx(1.000425, abs=1e-6)
    torch.testing.assert_close(stock, sample(m, noise, cfg=3.0) * scale, rtol=0, atol=1e-4)


def test_ksampler_advanced_takes_the_inverted_latent():
    """Noise disabled, euler or ddim on ddim_uniform: the stock schedule ends at 0 instead of abar_0."""
    m = smooth()
    noise, _ = invert(m, steps=25, iterations=2)
    for name in ("euler", "ddim"):
        out = nodes.KSamplerAdvanced().sample(
            m, "disable", 0, 25, 1.0, name, "ddim_uniform", caption(), caption(3), noise, 0, 10000, "disable"
        )[0]["samples"]
        assert psnr(out, clip()["samples"]) > 35


def test_guidance_and_prompt_matter():
    m = smooth()
    noise, _ = invert(m, steps=5)
    plain = sample(m, noise)
    assert not torch.equal(plain, sample(m, noise, cfg=7.5))
    assert not torch.equal(plain, sample(m, noise, positive=caption(9)))


class FrameControl(comfy.controlnet.ControlBase):
    """A ControlNet with one hint per frame, added in the middle of the UNet as the stock ones do."""

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        hint = comfy.controlnet.broadcast_image_to(self.cond_hint_original, len(x_noisy), batched_number)
        return self.control_merge({"middle": [hint.expand(-1, 64, 4, 4).clone()]}, None, x_noisy.dtype)


def test_controlnet_in_inversion_and_sampling():
    """It changes both, each frame by its own hint, and under it the clip still comes back."""
    control = FrameControl().set_cond_hint(torch.tensor([0.0, 0.5, 3.0]).view(-1, 1, 1, 1))
    hinted = [[caption()[0][0], {"control": control, "control_apply_to_uncond": True}]]
    m, alone = smooth(), inflate(model(scale=0.05), "custom", attention="per-frame", temporal_module="none")
    noise, _ = invert(m, positive=hinted, steps=20, iterations=5)
    assert psnr(sample(m, noise, hinted), clip()["samples"]) > 50 > psnr(sample(m, noise), clip()["samples"])
    noise, with_hints = (invert(alone, positive=p, steps=5)[0] for p in (caption(), hinted))
    inverted = with_hints["samples"] - noise["samples"]
    sampled = sample(alone, noise, hinted, cfg=3.0) - sample(alone, noise, cfg=3.0)
    for change in (inverted, sampled):
        first, second, third = change.flatten(1).abs().amax(1)
        assert first < 1e-4 < second < third


def test_seed_matters_only_with_eta():
    m = smooth()
    noise, _ = invert(m, steps=5)
    assert torch.equal(sample(m, noise, seed=1), sample(m, noise, seed=2))
    assert not torch.equal(sample(m, noise, seed=1, eta=1.0), sample(m, noise, seed=2, eta=1.0))
    assert torch.equal(sample(m, noise, seed=1, eta=1.0), sample(m, noise, seed=1, eta=1.0))


def test_steps_may_be_given_when_the_record_was_lost():
    m = inflate(model(scale=0.01))
    noise, _ = invert(m, clip(3) | {}, steps=5)
    # Save Latent keeps only the samples; these must look like noise of that schedule to be taken.
    bare = {"samples": torch.randn_like(noise["samples"]) * 13.12 / 0.18215}
    assert torch.isfinite(sample(m, bare, steps=50)).all()


def test_progress_covers_every_pass_and_ends_with_the_verdict(monkeypatch):
    seen = []
    monkeypatch.setattr("comfy.utils.ProgressBar.update_absolute", lambda self, v, t, p=None: seen.append((v, t, p)))
    invert(smooth(), steps=3, iterations=2)
    *passes, (done, total, verdict) = seen
    assert [(v, t) for v, t, _ in passes] == [(i, 12) for i in range(1, 13)]
    assert (done, total) == (12, 12) and verdict[1].width > verdict[1].height


@pytest.mark.parametrize("when", ["inversion", "sampling"])
def test_interrupt_leaves_the_plain_model_alone(monkeypatch, when):
    from comfy.model_management import InterruptProcessingException

    from .mini import plain_sample

    base = model()
    before = plain_sample(base)
    m = inflate(base)
    noise, _ = invert(m, steps=5)
    progress = pack("nodes.host.progress").Progress

    def stop(self, *args, **kwargs):
        raise InterruptProcessingException

    monkeypatch.setattr(progress, "advance", stop)
    with pytest.raises(InterruptProcessingException):
        invert(m, steps=5) if when == "inversion" else sample(m, noise)
    monkeypatch.undo()
    assert torch.equal(plain_sample(base), before)


def other_schedule():
    """The model inverted with, but for a noise table that another node has changed since."""
    m = smooth().clone()
    sampling = copy.deepcopy(m.get_model_object("model_sampling"))
    sampling.set_sigmas(sampling.sigmas * 1.1)
    m.add_object_patch("model_sampling", sampling)
    return m


MISMATCHES = {
    "another checkpoint": (lambda: inflate(model(seed=9, scale=0.05)), "with another checkpoint.*allow_mismatch"),
    "another prediction": (lambda: smooth("v"), "with eps-prediction, but.*allow_mismatch"),
    "another schedule": (other_schedule, r"ends at sigma 5.13, this model's at 5.65.*allow_mismatch"),
}


@pytest.mark.parametrize("other, words", MISMATCHES.values(), ids=MISMATCHES)
def test_noise_of_another_model_is_refused_unless_told_otherwise(caplog, other, words):
    noise, _ = invert(smooth(), steps=5)
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match=words):
        sample(other(), noise)
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match=words):
        run("sampler.EI2DDIMSampler", model=other(), latent=noise, seed=0, eta=0.0)
    caplog.clear()
    assert torch.isfinite(sample(other(), noise, allow_mismatch=True)).all()
    assert "will not come back as it was" in caplog.text


FINE = {"steps": 50, "iterations": 0, "dtype": torch.float32, "tuned": True}
POOR = {
    "few steps": ({"steps": 10}, "only 10 steps: use 50"),
    "half precision": ({"dtype": torch.float16}, "computes in float16"),
    "not tuned": ({"tuned": False}, "not tuned on this clip"),
    "the plain rule": ({}, "fixed_point_iterations to 3"),
    "nothing in sight": ({"iterations": 5}, "more steps, or empty text"),
}


@pytest.mark.parametrize("changes, cause", POOR.values(), ids=POOR)
def test_a_poor_round_trip_is_said_with_its_likely_cause(changes, cause):
    poor = pack("nodes.host.sampling.round_trip").poor
    assert poor([25.0, 21.0, 20.0], **FINE | changes) is None
    assert cause in poor([12.0, 13.0], **FINE | changes)
    assert "all frames below 20" in poor([12.0, 13.0], **FINE | changes)
    said = poor([35.0, 15.0], **FINE | changes)
    assert "25.0 dB on average, worst frame 2 with 15.0 dB; frame 2 below 20" in said
    assert "; frames 2, 3 below 20" in poor([35.0, 15.0, 14.0], **FINE | changes)
    assert "well at guidance 1: 12.0 dB; all frames below 20" in poor([12.0], **FINE | changes)
    assert poor([float("nan")], **FINE) is not None


def test_the_report_warns_and_is_plotted(monkeypatch, caplog):
    told, invert_video = [], pack("nodes.invert_video")
    monkeypatch.setattr(invert_video, "show_text", told.append)
    options = {"latents": clip(), "positive": caption(), "steps": 2, "fixed_point_iterations": 0}
    _, report, plot = run("invert_video.InvertVideo", model=inflate(model(scale=60.0)), **options)
    assert "WARNING: the clip does not come back well" in report and "only 2 steps" in report
    assert "only 2 steps" in told[0] and "only 2 steps" in caplog.text
    assert plot.shape[1] > 150 and plot.shape[::3] == (1, 3) and 0 <= plot.min() < plot.max() <= 1
    _, report, other = run("invert_video.InvertVideo", model=smooth(), **options | {"steps": 50})
    assert "WARNING" not in report and not torch.equal(plot, other)
    comes_back = r"the clip comes back well at guidance 1: [\d.]+ dB on average, worst frame \d with [\d.]+ dB"
    assert re.fullmatch(comes_back, told[1])


def test_the_node_keeps_showing_the_worst_frame(monkeypatch):
    """Below the verdict: the clip's frame on the left, what came back of it on the right."""
    round_trip = pack("nodes.host.sampling.round_trip")
    red, green = (torch.tensor(colour).expand(48, 64, 3) for colour in ([1.0, 0, 0], [0, 1.0, 0]))
    trip = round_trip.RoundTrip(None, None, [30.0, 21.0, 25.0], [], None, (red, green))
    words = []
    monkeypatch.setattr(
        round_trip, "label", lambda text, *a: words.append(text) or Image.new("RGB", (512, 40), "white")
    )
    picture = trip.picture
    assert words == ["the clip comes back well at guidance 1: 25.3 dB on average, worst frame 2 with 21.0 dB"]
    middle = picture.height - 150 - 60
    assert [picture.getpixel((x, middle)) for x in (100, 400)] == [(255, 0, 0), (0, 255, 0)]
    assert picture.width == 512


def test_the_last_preview_is_the_verdict(monkeypatch):
    """What an editor shows of a node is its last preview, if it has had any."""
    shown = []
    monkeypatch.setattr(
        "comfy.utils.ProgressBar.update_absolute", lambda bar, value, total, preview: shown.append(preview)
    )
    module = pack("nodes.invert_video")
    plot = module.InvertVideo.execute(inflate(model()), clip(), caption(), 2, 0).args[2]
    kind, picture, most = shown[-1]
    assert kind == "JPEG" and most >= max(picture.size) and torch.equal(pack("nodes.host.plots").image(picture), plot)


def test_a_picture_that_cannot_be_kept_loses_no_inversion(monkeypatch, caplog):
    module = pack("nodes.invert_video")
    monkeypatch.setattr(module.ui, "PreviewImage", lambda *args, **kwargs: 1 / 0)
    found = module.InvertVideo.execute(inflate(model()), clip(), caption(), 2, 0)
    assert found.ui is None and len(found.args) == 3
    assert "The picture in the node is left out" in caplog.text


def test_the_picture_is_shown_by_every_editor():
    found = pack("nodes.invert_video").InvertVideo.execute(inflate(model()), clip(), caption(), 2, 0)
    (image,) = found.ui.as_dict()["images"]
    assert image["type"] == "temp"
