"""NaN and infinity: stopped where they first arise, with the frame, the step and what to do about it."""

import logging
import math

import pytest
import torch

from .mini import caption, clip, custom_advanced, inflate, invert, model, pack, plain_sample, run, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error
NAN, INFINITE = float("nan"), float("inf")


@pytest.fixture(scope="module")
def ready():
    """(inflated model, its inverted latent of 3 frames in 5 steps)."""
    with torch.inference_mode():
        m = inflate(model())
        return m, invert(m)[0]


def spoil(monkeypatch, m, call, frame, value=NAN, dtype=torch.float32):
    """From this call of the model on, one value of one frame is not finite. dtype: what it says to compute in."""
    calls, original = [], m.model.apply_model

    def spoiled(x, t, **kwargs):
        calls.append(t)
        if len(calls) < call:
            return original(x, t, **kwargs)
        found = x.clone()
        found[frame - 1, 0, 0, 0] = value
        return found

    monkeypatch.setattr(m.model, "apply_model", spoiled)
    monkeypatch.setattr(m.model, "manual_cast_dtype", dtype)
    return calls


def by_sampler(m, latent):
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    return custom_advanced(m, latent, sampler, sigmas, cfg=1.0)


WAYS = {
    "EI² Sampler": (sample, 601),
    "EI² DDIM Sampler": (by_sampler, 601),
    "DDIM Invert Video": (lambda m, latent: invert(m), 201),
}  # and the timestep of its second step of five


@pytest.mark.parametrize("value", [NAN, INFINITE, -INFINITE])
@pytest.mark.parametrize("way, timestep", WAYS.values(), ids=WAYS)
def test_the_first_frame_and_step_are_named(monkeypatch, ready, way, timestep, value):
    calls = spoil(monkeypatch, ready[0], call=2, frame=3, value=value)
    sigma = float(ready[0].get_model_object("model_sampling").sigmas[timestep])
    with pytest.raises(EI2Error, match=rf"step 2 of 5 \(sigma {sigma:.2f}\), first in frame 3 of 3"):
        way(*ready)
    assert len(calls) == 2, "it does not run on"


ADVICE = {torch.float16: "float16.*--bf16-unet.*--fp32-unet", torch.bfloat16: "bfloat16.*LoRA.*another copy"}


@pytest.mark.parametrize("dtype, advice", ADVICE.items(), ids=str)
@pytest.mark.parametrize("way", [way for way, _ in WAYS.values()], ids=WAYS)
def test_the_advice_fits_what_the_model_computes_in(monkeypatch, ready, way, dtype, advice):
    spoil(monkeypatch, ready[0], call=1, frame=1, dtype=dtype)
    with pytest.raises(EI2Error, match=advice):
        way(*ready)


def test_steps_are_counted_with_fixed_point_iterations_too(monkeypatch, ready):
    spoil(monkeypatch, ready[0], call=5, frame=1)
    with pytest.raises(EI2Error, match="step 2 of 5"):
        invert(ready[0], iterations=2)


def test_the_plain_model_is_as_before(monkeypatch):
    base = model()
    before, m = plain_sample(base), inflate(base)
    with monkeypatch.context() as patch:
        spoil(patch, m, call=1, frame=1)
        with pytest.raises(EI2Error):
            invert(m)
    assert torch.equal(plain_sample(base), before)


class Vae:
    """A VAE whose decoder overflows in one frame, as the one of SDXL does in fp16."""

    vae_dtype = torch.float16

    def __init__(self, frame):
        self.frame = frame

    def decode(self, samples):
        images = samples[:, :3].movedim(1, -1).clone()
        images[self.frame - 1, 0, 0] = NAN
        return images


def test_a_vae_that_overflows_is_told_apart(caplog):
    """The figures in latents stand, and the picture is drawn."""
    with caplog.at_level(logging.WARNING):
        _, report, plot = run(
            "invert_video.InvertVideo", model=inflate(model(scale=0.05)), latents=clip(), positive=caption(), steps=50,
            fixed_point_iterations=3, vae=Vae(2),
        )  # fmt: skip
    warning = "the VAE's result is not finite, first in frame 2 of 3. It computes in float16"
    assert warning in report and warning in caplog.text and "--fp32-vae" in report
    assert "latent: " in report and "pixels: not measurable" in report
    assert "nan" not in report and torch.isfinite(plot).all()


def spoilt_text():
    text = caption()
    text[0][0][0, 3, 5] = NAN
    return text


TEXTS = {
    "tuning": lambda m, latent, text: tune(m, positive=text),
    "inversion": lambda m, latent, text: invert(m, positive=text),
    "sampling": lambda m, latent, text: sample(m, latent, positive=text),
    "sampling, negative": lambda m, latent, text: sample(m, latent, negative=text),
}


@pytest.mark.parametrize("node", TEXTS.values(), ids=TEXTS)
def test_a_text_that_is_not_finite_is_refused(ready, node):
    with pytest.raises(EI2Error, match=r"conditioning holds values that are not finite.*--fp32-text-enc"):
        node(*ready, spoilt_text())


CURVES = {
    "not a number": [NAN, 1.0, 2.0],
    "all frames equal": [INFINITE, INFINITE],
    "one frame equal": [30.0, INFINITE, 31.0],
    "nothing": [NAN],
}


@pytest.mark.parametrize("values", CURVES.values(), ids=CURVES)
@pytest.mark.parametrize("dots", [False, True])
def test_a_curve_is_drawn_of_any_values(values, dots):
    plots = pack("nodes.host.plots")
    assert plots.curve(values, "title", dots=dots).size == (plots.WIDTH, 150)


def test_what_is_no_number_is_left_out_of_a_curve():
    plots = pack("nodes.host.plots")
    assert plots.curve([1.0, math.nan, 2.0], "title", dots=False) != plots.curve([1.0, 1.5, 2.0], "title", dots=False)
