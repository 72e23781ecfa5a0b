"""Clips longer than a window, on the real host: by our windows, by the Context Windows node, and tuned in runs."""

import comfy.controlnet
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

import nodes

from .mini import caption, clip, custom_advanced, inflate, invert, model, run, sample, tune

LONG = 20
PER_FRAME = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}


def smooth(**options):
    return inflate(model(scale=0.05), **options)


def by_hand(m, length, overlap=0, schedule="standard_static", fuse="flat"):
    """As the node sets them; a newer host asks more, and has defaults for that only in its interface."""
    inputs = {
        "model": m, "context_length": length, "context_overlap": overlap, "context_schedule": schedule,
        "context_stride": 1, "closed_loop": False, "fuse_method": fuse, "dim": 0,
    }  # fmt: skip
    newer = {i.id: i.default for i in ContextWindowsManualNode.define_schema().inputs if i.id not in inputs}
    return ContextWindowsManualNode.execute(**inputs, **newer).args[0]


def batches(m, monkeypatch) -> list[int]:
    """Frames of every call of the UNet from now on."""
    found, original = [], m.model.apply_model

    def spy(x, t, **kwargs):
        found.append(len(x) // len(kwargs["transformer_options"]["cond_or_uncond"]))
        return original(x, t, **kwargs)

    monkeypatch.setattr(m.model, "apply_model", spy)
    return found


def psnr(a, b):
    return float(10 * torch.log10((b.max() - b.min()) ** 2 / (a - b).square().mean()))


@pytest.mark.parametrize(
    ("frames", "options", "step_calls"),
    [
        (16, {}, [[16], [16]]),
        (20, {}, [[4, 3, 10, 7], [4, 5, 10, 5]]),
        (20, {"mode": "Tune-A-Video"}, [[3, 10, 7], [5, 10, 5]]),
        (40, {}, [[4, 3, 14, 13, 10], [4, 7, 13, 13, 7]]),
    ],
)
def test_frames_of_every_call(frames, options, step_calls, monkeypatch):
    """The anchors first, then the windows, elsewhere at every step: the one of rank 2, then that of rank 1."""
    m = smooth(**options)
    noise = invert(m, clip(frames), steps=2)[0]
    calls = batches(m, monkeypatch)
    sample(m, noise)
    assert calls == step_calls[0] + step_calls[1]


@pytest.mark.parametrize("options", [{}, {"mode": "Tune-A-Video"}], ids=str)
def test_inversion_and_sampling_have_the_same_windows(options):
    """Or five iterations would not be exact inverses. An odd number of steps: the two count them from other ends."""
    m, latents = smooth(**options), clip(LONG)
    noise, _ = invert(m, latents, steps=7, iterations=5)
    assert psnr(sample(m, noise), latents["samples"]) > 50


def test_independent_frames_do_not_care_about_windows():
    m, latents = smooth(**PER_FRAME), clip(LONG)
    noise, _ = invert(m, latents, steps=4)
    halves = [{**noise, "samples": noise["samples"][half]} for half in (slice(0, 10), slice(10, LONG))]
    parts = torch.cat([sample(m, half) for half in halves])
    torch.testing.assert_close(sample(m, noise), parts, rtol=0, atol=1e-4)


def test_the_samplers_agree_on_a_long_clip():
    m = smooth()
    noise = invert(m, clip(LONG), steps=4)[0]
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=noise, seed=0, eta=0.0)
    assert torch.equal(custom_advanced(m, noise, sampler, sigmas, cfg=2.0)["samples"], sample(m, noise, cfg=2.0))


@pytest.mark.parametrize("before", [True, False], ids=["before inflating", "after"])
@pytest.mark.parametrize(("schedule", "fuse"), [("standard_static", "pyramid"), ("standard_uniform", "flat"),
                                                ("standard_static", "relative"), ("batched", "flat")])  # fmt: skip
def test_context_windows_of_the_user_come_first(before, schedule, fuse, monkeypatch):
    settings = {"length": 6, "overlap": 2, "schedule": schedule, "fuse": fuse}
    m = inflate(by_hand(model(scale=0.05), **settings)) if before else by_hand(smooth(), **settings)
    handler = m.model_options["context_handler"]
    settings = dict(vars(handler))
    calls = batches(m, monkeypatch)
    noise = invert(m, clip(LONG), steps=3)[0]
    edited = sample(m, noise, cfg=2.0)
    assert max(calls) == 6
    assert calls[0] == 4
    assert edited.isfinite().all()
    assert m.model_options["context_handler"] is handler
    assert vars(handler) == settings


@pytest.mark.parametrize(("options", "tied"), [({}, True), ({"mode": "Tune-A-Video"}, False)])
def test_windows_see_the_anchors(options, tied):
    """Frame 3 is an anchor of 24 frames: with FFAM the last window sees it, which does not hold it."""
    m, latents = smooth(**options), clip(24)
    noise = invert(m, latents, steps=2)[0]
    changed = {**noise, "samples": noise["samples"].clone()}
    changed["samples"][3] += 5
    moved = (sample(m, changed) - sample(m, noise)).abs().amax((1, 2, 3))
    assert bool(moved[20:].max() > 1e-6) is tied


class Hints(comfy.controlnet.ControlBase):
    """A ControlNet that only writes down which hints it was asked with, beside the frames it was asked for."""

    def __init__(self, hints, asked):
        super().__init__()
        self.cond_hint_original, self.asked = hints, asked

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        window = transformer_options["context_window"].index_list
        self.asked.append((self.cond_hint_original.flatten().tolist(), window))
        if self.previous_controlnet is not None:
            self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        return {"input": [], "middle": [], "output": []}

    def copy(self):
        made = Hints(self.cond_hint_original, self.asked)
        self.copy_to(made)
        return made


def test_hints_and_texts_follow_their_frames(monkeypatch):
    """A hint for each frame, of two ControlNets in a chain, and a text for each frame; one hint serves all."""
    m, asked, one = smooth(), [], []
    hints = torch.arange(float(LONG)).view(LONG, 1, 1, 1)
    control = Hints(hints, asked).set_previous_controlnet(
        Hints(hints, asked).set_previous_controlnet(Hints(hints[:1], one))
    )
    rows = torch.randn(LONG, 77, 64, generator=torch.Generator().manual_seed(0))
    texts, original = [], m.model.apply_model

    def spy(x, t, **kwargs):
        window = kwargs["transformer_options"]["context_window"].index_list
        texts.append(torch.equal(kwargs["c_crossattn"], rows[window]))
        return original(x, t, **kwargs)

    monkeypatch.setattr(m.model, "apply_model", spy)
    text = [[rows, {"control": control, "control_apply_to_uncond": True}]]
    invert(m, clip(LONG), positive=text, steps=2)
    assert texts
    assert all(texts)
    assert asked
    assert all(seen == [float(i) for i in window] for seen, window in asked)
    assert all(seen == [0.0] for seen, _ in one)
    assert torch.equal(control.cond_hint_original, hints)


def texts(rows):
    return [[torch.randn(2 * LONG, 77, 64, generator=torch.Generator().manual_seed(9))[rows], {}]]


def masked_texts(rows):
    """Two texts, one of them in a part of each picture."""
    masks = torch.rand(2 * LONG, 8, 8, generator=torch.Generator().manual_seed(9))[rows]
    set_mask = nodes.ConditioningSetMask().append(caption(), masks, "default", 1.0)[0]
    return nodes.ConditioningCombine().combine(set_mask, caption(7))[0]


@pytest.mark.parametrize("conditioning", [texts, masked_texts])
@pytest.mark.parametrize("rows", [5, LONG, LONG + 6], ids=["too few go round", "a row each", "some left over"])
def test_rows_of_conditioning_follow_their_frames(conditioning, rows):
    """Of independent frames the clip is what each frame gives alone."""
    m, latents = smooth(**PER_FRAME), clip(LONG)["samples"]
    noise = invert(m, {"samples": latents}, positive=conditioning(list(range(rows))), steps=2)[0]["samples"]
    for i in (0, 6, LONG - 1):
        alone = invert(m, {"samples": latents[i : i + 1]}, positive=conditioning([i % rows]), steps=2)[0]["samples"]
        torch.testing.assert_close(noise[i], alone[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("frames", "window", "seen"), [(20, 16, 16), (20, 5, 5), (20, 32, 20), (3, 16, 3)])
def test_tuning_sees_a_window_of_the_clip(frames, window, seen, monkeypatch):
    m = smooth()
    calls = batches(m, monkeypatch)
    tuned, weights, _ = tune(m, clip(frames), steps=3, window=window)
    assert set(calls) == {seen}
    assert (weights.header.run["frames"], weights.header.run["window"]) == (frames, seen)
    assert sample(tuned, invert(tuned, clip(frames), steps=2)[0]).shape[0] == frames


def free_noise(executor, guider, sigmas, extra_args, *args):
    assert "context_handler" in extra_args["model_options"]
    return executor(guider, sigmas, extra_args, *args)


def test_context_windows_do_not_cut_what_tuning_sees(monkeypatch):
    """Nor does what a newer host's node adds for FreeNoise, which looks for its windows."""
    m = by_hand(smooth(), 4)
    m.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, "ContextWindows_sampler_sample", free_noise)
    calls = batches(m, monkeypatch)
    tune(m, clip(12), steps=2)
    assert set(calls) == {12}


WORK = {
    "inverting": lambda m, latents: invert(m, latents, steps=1),
    "tuning": lambda m, latents: tune(m, latents, steps=1),
}


@pytest.mark.parametrize("work", WORK.values(), ids=WORK)
def test_the_memory_that_is_asked_for_does_not_grow_with_the_clip(work, monkeypatch):
    import comfy.model_management as mm

    asked, original = [], mm.load_models_gpu
    monkeypatch.setattr(mm, "load_models_gpu", lambda *a, **k: asked.append(k["memory_required"]) or original(*a, **k))
    m = smooth()
    work(m, clip(16))
    once = list(asked)
    work(m, clip(64))
    assert asked == 2 * once
