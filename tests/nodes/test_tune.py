"""One-Shot Tune on the real host: precision, checkpointing, resuming, stopping, and what it gives back."""

import comfy.ldm.modules.attention
import comfy.model_management
import pytest
import torch

from ..same import same, tensors
from .mini import caption, clip, inflate, model, pack, plain_sample, tune


def test_outputs():
    m = inflate(model())
    tuned, weights, losses = tune(m, steps=3)
    assert len(losses["loss"]) == 3
    assert all(torch.isfinite(torch.tensor(losses["loss"])))
    assert weights.header.run["steps"] == 3
    assert any(t.abs().max() > 0 for t in weights.tensors.queries.values())
    assert not torch.equal(plain_sample(tuned), plain_sample(m))


def test_returned_model_is_the_weights_inflated():
    m = model()
    tuned, weights, _ = tune(inflate(m))
    assert torch.equal(plain_sample(tuned), plain_sample(inflate(m, weights=weights)))


def test_models_that_came_in_are_untouched():
    m = model()
    plain, inflated = plain_sample(m), plain_sample(inflate(m))
    latents, text = clip(), caption()
    tune(inflate(m), latents, text)
    assert torch.equal(plain_sample(m), plain)
    assert torch.equal(plain_sample(inflate(m)), inflated)
    assert torch.equal(latents["samples"], clip()["samples"])
    assert torch.equal(text[0][0], caption()[0][0])
    leftovers = [n for n, x in m.model.named_modules() if "forward" in vars(x) or "_ei2_temporal" in vars(x)]
    assert leftovers == []


def test_base_weights_do_not_move():
    m = model()
    before = {n: p.clone() for n, p in m.model.named_parameters()}
    tune(inflate(m))
    comfy.model_management.unload_all_models()
    assert all(torch.equal(p, before[n]) for n, p in m.model.named_parameters())


def test_same_seed_same_weights():
    m = inflate(model())
    a, b, c = (tune(m, seed=s)[1] for s in (1, 1, 2))
    assert same(a, b)
    assert not same(a, c)


def test_checkpointing_changes_nothing():
    m = inflate(model())
    a, b = (tune(m, gradient_checkpointing=c)[1] for c in ("on", "off"))
    for name, tensor in tensors(a).items():
        torch.testing.assert_close(tensor, tensors(b)[name], rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_precisions(precision):
    _, weights, losses = tune(inflate(model()), precision=precision, steps=3)
    assert all(t.dtype == torch.float32 for t in tensors(weights).values())
    assert len(losses["loss"]) == 3


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_the_unet_computes_in_the_chosen_precision_and_fp16_alone_scales_its_loss(monkeypatch, precision):
    training, m, seen, scaled = pack("nodes.host.tuning.run"), inflate(model()), [], []
    original = training.Tuning
    monkeypatch.setattr(training, "Tuning", lambda *a, **k: scaled.append(k["loss_scaling"]) or original(*a, **k))
    unet = m.model.diffusion_model
    unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].dtype))
    unet.middle_block[1].register_forward_hook(lambda _, args, out: seen.append(out.dtype))
    tune(m, precision=precision)
    assert set(seen) == {pack("nodes.host.precision").PRECISIONS[precision]}, "on the way in and in the middle"
    assert scaled == [precision == "fp16"]
    seen.clear()
    plain_sample(m)
    assert set(seen) == {torch.float32}, "afterwards the model computes as it did"


@pytest.mark.parametrize("mode", ["EI²", "dense"])
def test_tuning_never_uses_an_inference_only_kernel(monkeypatch, mode):
    """Kernels like SageAttention have no backward: here one that would give queries no gradient."""
    host, m = comfy.ldm.modules.attention, inflate(model(), mode)
    _, expected, _ = tune(m)
    kernel = host.wrap_attn(lambda q, k, v, heads, **_: v[:, :1].expand_as(q).detach())
    monkeypatch.setattr(host, "optimized_attention", kernel)
    monkeypatch.setattr(host, "optimized_attention_masked", kernel)
    assert same(tune(m)[1], expected)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize(
    ("mode", "temporal"),
    [("EI²", True), ("Tune-A-Video", True), ("dense", False), ("Video-P2P", True), ("FateZero", False)],
)
def test_modes_and_predictions(mode, temporal, prediction):
    _, weights, _ = tune(inflate(model(prediction), mode))
    assert weights.header.prediction == prediction
    assert bool(weights.tensors.temporal) == temporal


def test_loss_is_near_one_for_a_silent_model():
    """A model that predicts no noise at all has the variance of noise as its loss."""
    _, _, losses = tune(inflate(model(scale=0.0)), steps=4)
    assert sum(losses["loss"]) / 4 == pytest.approx(1, abs=0.15)


def test_one_frame_works():
    tuned, weights, _ = tune(inflate(model()), clip(1))
    assert weights.header.run["frames"] == 1
    assert torch.isfinite(plain_sample(tuned, frames=1)).all()


def test_a_preset_is_said_where_it_changes_something(monkeypatch, caplog):
    caplog.set_level("INFO")
    config = pack("ei2_modules.config")
    monkeypatch.setitem(config.TUNING_PRESETS, "fast", {"steps": 2, "learning_rate": 7.5e-5})
    m = inflate(model())
    for steps, taken in ((500, 2), (3, 3)):
        caplog.clear()
        assert len(tune(m, steps=steps, preset="fast")[2]["loss"]) == taken
        said = [line for line in caplog.messages if "Preset" in line]
        assert said == ["EI²: Preset fast: 2 steps at a learning rate of 0.001."] * (steps == 500)


@pytest.mark.parametrize("name", ["precision", "gradient_checkpointing", "preset"])
def test_a_choice_is_checked_before_the_run(name):
    node = pack("nodes.one_shot_tune").OneShotTune
    assert f"{name} is 'x': it must be one of" in node.validate_inputs(**{name: "x"})
    assert node.validate_inputs(**{name: None}) is True, "wired from another node"


def test_going_on_from_weights():
    """Wired in or carried by the model, they are where tuning starts; and the base stays the base."""
    m = inflate(model())
    tuned, weights, _ = tune(m, steps=2)
    wired, carried = tune(m, weights=weights, steps=1)[1], tune(tuned, steps=1)[1]
    assert same(wired, carried)
    for path, delta in wired.tensors.queries.items():
        assert (delta - weights.tensors.queries[path]).abs().max() < 2.1e-3, "one AdamW step at 1e-3, from there"
        assert delta.abs().max() > 0


def test_going_on_keeps_the_start_of_stam():
    """Weights tuned under clamp stay under it, whatever the inflating node says now."""
    _, weights, _ = tune(inflate(model(), stam_init="clamp"), steps=2)
    wired = tune(inflate(model(), stam_init="random"), weights=weights, steps=1)[1]
    carried = tune(inflate(model(), stam_init="random", weights=weights), steps=1)[1]
    assert wired.options().stam_init == "clamp" and same(wired, carried)


@pytest.mark.parametrize("at, left", [(1, "Nothing was learnt"), (4, "weights of step 3 are kept")])
def test_divergence_says_what_is_left(at, left):
    assert left in str(pack("ei2_modules.errors").DivergedError(at, "loss"))


def test_a_lora_beneath_is_not_learnt_again():
    """Query differences are to the weight with its LoRA, which stays a patch of its own."""
    m = model().clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    m.add_patches({key: ("diff", (torch.ones_like(m.get_model_object(key)),))})
    tuned, weights, _ = tune(inflate(m), steps=1)
    assert weights.tensors.queries[key[16:-7]].abs().max() < 0.01
    assert len(tuned.patches[key]) == 2


class Stop(Exception):
    pass


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize("error", [Stop, comfy.model_management.InterruptProcessingException])
def test_stopping_keeps_the_work_and_the_host(folders, monkeypatch, at, error):
    m = model()
    before = plain_sample(m)
    progress = pack("nodes.host.tuning.preview").TuningProgress
    original = progress.after_step

    def stop(self, number, *pictures):
        if number == at:
            raise error()
        original(self, number, *pictures)

    monkeypatch.setattr(progress, "after_step", stop)
    with pytest.raises(error):
        tune(inflate(m), steps=5)
    saved = list((folders / "output" / "ei2").glob("unfinished_*.safetensors"))
    assert len(saved) == 1
    weights = pack("ei2_modules.inflation.weights").load(saved[0])
    assert weights.header.run["steps"] == at
    assert torch.equal(plain_sample(m), before)
    monkeypatch.undo()
    assert same(weights, tune(inflate(m), steps=at)[1]), "what was kept is what a shorter run gives"


def test_nan_stops_and_says_where(folders, monkeypatch):
    training = pack("nodes.host.tuning.run")
    original, calls = training.TuningGuider.denoise, []

    def poisoned(self, *args):
        calls.append(1)
        return original(self, *args) * (float("nan") if len(calls) == 3 else 1)

    monkeypatch.setattr(training.TuningGuider, "denoise", poisoned)
    with pytest.raises(pack("ei2_modules.errors").DivergedError, match="step 3"):
        tune(inflate(model()), steps=5)
    saved = list((folders / "output" / "ei2").glob("unfinished_*.safetensors"))
    assert pack("ei2_modules.inflation.weights").load(saved[0]).header.run["steps"] == 2


def test_fp16_that_never_finds_a_finite_gradient_is_said(monkeypatch, folders):
    """Loss scaling skips such steps: without a word the weights would stay as they were."""
    training = pack("nodes.host.tuning.run")
    original = training.TuningGuider.denoise

    def infinite_slope(self, *args):
        x = original(self, *args)
        x.register_hook(lambda gradient: gradient * float("inf"))
        return x

    monkeypatch.setattr(training.TuningGuider, "denoise", infinite_slope)
    with pytest.raises(pack("ei2_modules.errors").DivergedError, match="step 17: the gradient is not finite"):
        tune(inflate(model()), steps=30, precision="fp16")


def test_a_full_disk_does_not_hide_the_cancel(folders, monkeypatch, caplog):
    storage, progress = pack("nodes.host.files.weights_folder"), pack("nodes.host.tuning.preview").TuningProgress
    stop = comfy.model_management.InterruptProcessingException
    monkeypatch.setattr(progress, "after_step", lambda *args: (_ for _ in ()).throw(stop()))
    monkeypatch.setattr(storage, "save", lambda *args: (_ for _ in ()).throw(OSError("No space left on device")))
    with pytest.raises(stop):
        tune(inflate(model()))
    assert "could not be kept: No space left" in caplog.text
