"""Packs that are told which frames a call holds, in AnimateDiff-Evolved's words; and that pack's own windows.

Their mechanisms in a few lines: ControlNets that keep bound methods of themselves and choose their hints (Advanced-
ControlNet), pictures attended to frame by frame (IPAdapter Batch), wrappers around every sampling (AnimateDiff).
"""

import logging
from types import SimpleNamespace

import comfy.controlnet
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_extras.nodes_context_windows import ContextWindowsManualNode

from .mini import caption, clip, inflate, invert, model, pack, sample, tune

EI2Error = pack("ei2_modules.errors").EI2Error
guider = pack("nodes.host.tuning.guider")
LONG = 20
HINTS = torch.arange(float(LONG)).view(LONG, 1, 1, 1)
PER_FRAME = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}


class Plain(comfy.controlnet.ControlBase):
    """As core's: asks itself for the hints of a call and writes them down."""

    def __init__(self, asked, hints=HINTS):
        super().__init__()
        self.asked, self.cond_hint_original = asked, hints
        self.ran_before = False

    def pre_run(self, model, percent_to_timestep_function):
        super().pre_run(model, percent_to_timestep_function)
        self.ran_before = True

    def used(self, transformer_options):
        return self.cond_hint_original.flatten().tolist()

    def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
        assert self.ran_before
        self.asked.append(self.used(transformer_options))
        if self.previous_controlnet is not None:
            self.previous_controlnet.get_control(x_noisy, t, cond, batched_number, transformer_options)
        return {"input": [], "middle": [], "output": []}

    def copy(self):
        made = type(self)(self.asked, self.cond_hint_original)
        self.copy_to(made)
        return made


class Bound(Plain):
    """Keeps its own method among its attributes."""

    def __init__(self, asked, hints=HINTS):
        super().__init__(asked, hints)
        self.get_control = self.get_control_inside

    def get_control_inside(self, *args):
        return Plain.get_control(self, *args)


class Choosing(Bound):
    """Chooses the hints of the window by itself, and counts its calls."""

    def __init__(self, asked, hints=HINTS):
        super().__init__(asked, hints)
        self.sub_idxs, self.calls = None, 0

    def used(self, transformer_options):
        self.calls += 1
        told = transformer_options.get("ad_params", {})
        self.sub_idxs = told.get("sub_idxs", self.sub_idxs)
        hints = super().used(transformer_options)
        if self.sub_idxs is None:
            return hints
        assert told["full_length"] == LONG
        assert told["context_length"] == len(self.sub_idxs)
        return [hints[i] for i in self.sub_idxs]


CHAINS = {
    "core's": [Plain],
    "with bound methods": [Bound],
    "choosing": [Choosing],
    "choosing before core's": [Choosing, Plain],
    "core's before choosing": [Plain, Choosing],
    "all at once": [Choosing, Bound, Choosing, Plain],
}


def chained(kinds, asked):
    """The last of a chain, each of whose members writes into `asked`."""
    control = None
    for kind in kinds:
        control = kind(asked).set_previous_controlnet(control)
    return control


def under(control):
    return [[caption()[0][0], {"control": control, "control_apply_to_uncond": True}]]


def called(m, monkeypatch):
    """The frames of every call of the UNet from now on."""
    found, original = [], m.model.apply_model

    def spy(x, t, **kwargs):
        found.append(list(kwargs["transformer_options"]["context_window"].index_list))
        return original(x, t, **kwargs)

    monkeypatch.setattr(m.model, "apply_model", spy)
    return found


@pytest.mark.parametrize("kinds", CHAINS.values(), ids=CHAINS)
def test_hints_follow_their_frames_in_windows(kinds, monkeypatch):
    m, asked = inflate(model(scale=0.05)), []
    control = chained(kinds, asked)
    windows = called(m, monkeypatch)
    invert(m, clip(LONG), positive=under(control), steps=2)
    assert len({tuple(window) for window in windows}) > 3
    assert asked == [[float(i) for i in window] for window in windows for _ in kinds]
    if kinds[-1] is Choosing:
        assert control.calls == len(windows)


@pytest.mark.parametrize("kinds", CHAINS.values(), ids=CHAINS)
def test_hints_follow_their_frames_in_tuning(kinds, monkeypatch):
    asked, expected, denoise = [], [], guider.TuningGuider.denoise

    def watched(self, x, sigma, frames):
        asked.clear()
        out = denoise(self, x, sigma, frames)
        assert asked == [[float(i) for i in frames]] * len(kinds)
        expected.append(frames)
        return out

    monkeypatch.setattr(guider.TuningGuider, "denoise", watched)
    control = chained(kinds, asked)
    tune(inflate(model()), clip(LONG), under(control), steps=4, window=6, preview_every=2)
    assert len(set(expected)) > 1
    assert not control.ran_before, "the ControlNet that came in is not run itself"


def with_pictures(m, pictures, told=None):
    """A picture for each frame, attended to beside the text: chosen by the window, or the first ones."""
    m = m.clone()

    def attend(q, k, v, extra_options):
        texts, among = len(extra_options["cond_or_uncond"]), extra_options.get("ad_params", {}).get("sub_idxs")
        if told is not None:
            told.append((len(q) // texts, among))
        seen = pictures[: len(q) // texts] if among is None else pictures[among]
        return q + seen.repeat(texts, 1, 1)

    m.set_model_attn2_replace(attend, "input", 1)
    return m


def test_pictures_follow_their_frames_in_windows():
    """Of independent frames the clip is what each frame gives alone with its picture."""
    pictures = torch.randn(LONG, 1, 32, generator=torch.Generator().manual_seed(4))
    m, latents = inflate(model(scale=0.05), **PER_FRAME), clip(LONG)["samples"]
    noise = invert(with_pictures(m, pictures), {"samples": latents}, steps=2)[0]
    edited = sample(with_pictures(m, pictures), noise, cfg=2.0)
    for i in (0, 6, LONG - 1):
        one = with_pictures(m, pictures[i : i + 1])
        alone = invert(one, {"samples": latents[i : i + 1]}, steps=2)[0]
        torch.testing.assert_close(noise["samples"][i], alone["samples"][0], rtol=0, atol=1e-4)
        torch.testing.assert_close(edited[i], sample(one, alone, cfg=2.0)[0], rtol=0, atol=1e-3)


def test_pictures_follow_their_frames_in_tuning(monkeypatch):
    pictures, told, denoise = torch.zeros(LONG, 1, 32), [], guider.TuningGuider.denoise

    def watched(self, x, sigma, frames):
        told.clear()
        out = denoise(self, x, sigma, frames)
        assert told == [(6, list(frames))]
        return out

    monkeypatch.setattr(guider.TuningGuider, "denoise", watched)
    m = with_pictures(inflate(model()), pictures.clone(), told)
    tune(m, clip(LONG), steps=3, window=6, gradient_checkpointing="off")


def test_a_clip_that_is_seen_whole_needs_no_word(monkeypatch):
    told = []
    m = with_pictures(inflate(model()), torch.zeros(3, 1, 32), told)
    tune(m, clip(3), steps=1)
    sample(m, invert(m, clip(3), steps=1)[0])
    assert {among for _, among in told} == {None}


class AnimateDiff:
    """Cuts the clip it saw at the start into windows of its own, in every call, and says so."""

    def __init__(self, m, length, motion=False):
        self.length, self.lengths = length, []
        self.m = m.clone()
        self.m.set_attachments("ADE_params", SimpleNamespace(context_options=SimpleNamespace(context_length=length)))
        self.m.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "ADE", self.outer_sample)
        self.m.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "ADE", self.calc_cond_batch)
        if motion:
            self.m.set_additional_models("ADE", [model()])

    def outer_sample(self, executor, noise, *args, **kwargs):
        self.full = len(noise)
        return executor(noise, *args, **kwargs)

    def calc_cond_batch(self, executor, model, conds, x, timestep, model_options):
        if self.length is None:
            self.lengths.append(len(x))
            return executor(model, conds, x, timestep, model_options)
        out = [torch.zeros_like(x) for _ in conds]
        for i in range(0, self.full, self.length):
            some = list(range(i, min(i + self.length, self.full)))
            told = {"full_length": self.full, "context_length": len(some), "sub_idxs": some}
            options = {**model_options["transformer_options"], "ad_params": told}
            found = executor(model, conds, x[some], timestep[some], {**model_options, "transformer_options": options})
            for all_frames, part in zip(out, found, strict=True):
                all_frames[some] = part
            self.lengths.append(len(some))
        return out


@pytest.mark.parametrize("inside", [True, False], ids=["behind Inflate", "before it"])
def test_animatediffs_windows_come_first(inside, monkeypatch):
    """Frames see each other within them: each is what it gives alone."""
    ade = AnimateDiff(inflate(model(scale=0.05)) if inside else model(scale=0.05), 10)
    m = ade.m if inside else inflate(ade.m)
    plain = inflate(model(scale=0.05))
    noise, _ = invert(m, clip(LONG), steps=2)
    edited = sample(m, noise, cfg=2.0)
    assert set(ade.lengths) == {10}
    for some in (slice(0, 10), slice(10, 20)):
        alone = invert(plain, {"samples": clip(LONG)["samples"][some]}, steps=2)[0]
        torch.testing.assert_close(noise["samples"][some], alone["samples"], rtol=0, atol=1e-4)
        torch.testing.assert_close(edited[some], sample(plain, alone, cfg=2.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("frames", [12, LONG])
def test_animatediff_is_left_out_of_tuning(frames, caplog):
    ade = AnimateDiff(inflate(model()), 4)
    with caplog.at_level(logging.WARNING):
        tuned, weights, _ = tune(ade.m, clip(frames), steps=3, window=6)
    assert ade.lengths == []
    assert "Context Options play no part in the tuning" in caplog.text
    expected = tune(inflate(model()), clip(frames), steps=3, window=6)[1]
    assert all(torch.equal(t, expected.tensors.queries[name]) for name, t in weights.tensors.queries.items())
    invert(tuned, clip(frames), steps=1)
    assert set(ade.lengths) == {4}


def test_a_motion_model_takes_the_clip_whole(caplog):
    ade = AnimateDiff(inflate(model(scale=0.05)), None, motion=True)
    with caplog.at_level(logging.WARNING):
        invert(ade.m, clip(LONG), steps=1)
    assert set(ade.lengths) == {LONG}
    assert "motion model takes all 20 frames at once" in caplog.text


def test_its_settings_without_windows_leave_ours():
    ade = AnimateDiff(inflate(model(scale=0.05)), None)
    invert(ade.m, clip(LONG), steps=1)
    assert max(ade.lengths) == 10


def test_tuning_with_a_motion_model_is_refused():
    with pytest.raises(EI2Error, match="motion model of AnimateDiff"):
        tune(AnimateDiff(inflate(model()), 8, motion=True).m)


@pytest.mark.parametrize(("length", "why"), [(10, r"Options are set \(10 frames\)"), (None, "takes a clip whole")])
def test_two_sets_of_windows_are_refused(length, why):
    m = AnimateDiff(inflate(model()), length, motion=True).m
    inputs = {
        "model": m, "context_length": 8, "context_overlap": 0, "context_schedule": "standard_static",
        "context_stride": 1, "closed_loop": False, "fuse_method": "flat", "dim": 0,
    }  # fmt: skip
    newer = {i.id: i.default for i in ContextWindowsManualNode.define_schema().inputs if i.id not in inputs}
    m = ContextWindowsManualNode.execute(**inputs, **newer).args[0]
    with pytest.raises(EI2Error, match=f"the clip of 12 frames.*{why}"):
        invert(m, clip(12), steps=1)
    if length:
        invert(m, clip(8), steps=1)  # nothing is cut
