"""ControlNets beside ours, miniature and random: hints frame by frame, in inversion, sampling and tuning."""

import gc
import weakref

import comfy.ldm.modules.diffusionmodules.openaimodel as host_unet
import pytest
import torch

from ..same import same, tensors
from .mini import (
    caption,
    clip,
    control_lora,
    controlled,
    controlnet,
    hints,
    inflate,
    invert,
    model,
    pack,
    plain_sample,
    sample,
    t2i_adapter,
    tune,
)

PER_FRAME = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}
FRAMES = 3


def of_frame(latent, i):
    return {**latent, "samples": latent["samples"][i : i + 1]}


HINTS = {
    "one": [range(FRAMES)],
    "two at once": [range(FRAMES), range(10, 10 + FRAMES)],
    "one hint for all frames": [[4] * FRAMES],
    "fewer hints than frames go round": [[4, 5, 4]],
}


@pytest.mark.parametrize("nets", HINTS.values(), ids=HINTS)
def test_each_frame_gets_its_own_hint(nets):
    """Of independent frames the batch is what each frame gives alone with its hint; and hints do something."""
    m, nodes = inflate(model(scale=0.05), **PER_FRAME), [controlnet(seed) for seed, _ in enumerate(nets)]
    as_wired = [list(dict.fromkeys(seen)) for seen in nets]
    both = controlled(*zip(nodes, map(hints, as_wired), strict=True))
    noise = invert(m, clip(FRAMES), positive=both[0])[0]
    edited = sample(m, noise, *both, cfg=2.0)
    for i in range(FRAMES):
        alone = controlled(*zip(nodes, (hints([seen[i]]) for seen in nets), strict=True))
        noise_alone = invert(m, of_frame(clip(FRAMES), i), positive=alone[0])[0]
        torch.testing.assert_close(noise["samples"][i], noise_alone["samples"][0], rtol=0, atol=1e-4)
        edited_alone = sample(m, of_frame(noise, i), *alone, cfg=2.0)
        torch.testing.assert_close(edited[i], edited_alone[0], rtol=0, atol=1e-3)
    plain = sample(m, noise, cfg=2.0)
    assert (edited - plain).abs().max() > 0.1


def test_the_hints_of_a_step_go_with_it(monkeypatch):
    """Without waiting for Python's collector, which may come after hundreds of steps."""
    conditioning, made, alive = pack("nodes.host.conditioning"), weakref.WeakSet(), []
    original = conditioning.conds_of_frames

    def watched(*args):
        conds = original(*args)
        made.add(conds[0]["control"])
        alive.append(len(made))
        return conds

    monkeypatch.setattr(conditioning, "conds_of_frames", watched)
    gc.disable()
    try:
        tune(inflate(model()), positive=controlled((controlnet(), hints(range(FRAMES))))[0], steps=4)
    finally:
        gc.enable()
    assert alive == [1] * 4


KINDS = [controlnet, control_lora, t2i_adapter]
CHAINS = {**{kind.__name__: [kind] for kind in KINDS}, "two": [controlnet] * 2, "mixed": [controlnet, t2i_adapter]}


@pytest.mark.parametrize("checkpointing", ["on", "off"])
@pytest.mark.parametrize("nets", CHAINS.values(), ids=CHAINS)
def test_tuned_with_hints_is_the_slow_reference(nets, checkpointing, monkeypatch):
    """The host adds residuals in place, and the backward pass must not notice: adding apart gives equal weights.

    But for rounding, as gradients are summed in another order: the mean difference was 7e-9 of changes of 1e-3.
    """
    text, _ = controlled(*((net(seed), hints(range(FRAMES))) for seed, net in enumerate(nets)))
    m = inflate(model())
    weights = tune(m, positive=text, gradient_checkpointing=checkpointing)[1]

    def add(h, control, name):
        residual = control[name].pop() if control and control.get(name) else None
        return h if residual is None else h + residual

    monkeypatch.setattr(pack("nodes.host.conditioning"), "has_control", lambda text: False)
    monkeypatch.setattr(host_unet, "apply_control", add)
    slow = tensors(tune(m, positive=text, gradient_checkpointing="off")[1])
    differences = torch.cat([(tensor - slow[name]).flatten().abs() for name, tensor in tensors(weights).items()])
    assert differences.mean() < 1e-7
    assert differences.max() < 1e-4


def test_hints_are_learnt_with():
    m = inflate(model())
    near, far, none = (
        tune(m, positive=text)[1]
        for text in (
            controlled((controlnet(), hints(range(FRAMES))))[0],
            controlled((controlnet(), hints(range(5, 5 + FRAMES))))[0],
            caption(),
        )
    )
    assert not same(near, none)
    assert not same(near, far)


LONG = {"each its own": range(7), "one for all": [4], "going round": [4, 5, 6]}


@pytest.mark.parametrize("wired", LONG.values(), ids=LONG)
def test_a_step_sees_the_hints_of_its_own_frames(wired, monkeypatch):
    """And a text for each frame likewise."""
    wired, host, seen = list(wired), model(), []
    original, denoise = host.model.apply_model, pack("nodes.host.tuning.guider").TuningGuider.denoise
    rows = torch.arange(7.0).view(7, 1, 1).expand(7, 77, 64)
    net = controlnet()
    shown = net.control_model.forward

    def forward(*args, hint, **kwargs):
        seen.append(hint)
        return shown(*args, hint=hint, **kwargs)

    def apply_model(x, t, **kwargs):
        seen.append(kwargs["c_crossattn"][:, 0, 0].tolist())
        return original(x, t, **kwargs)

    def step(self, x, sigma, frames):
        seen.clear()
        out = denoise(self, x, sigma, frames)
        expected = hints([wired[i % len(wired)] for i in frames] if len(wired) > 1 else wired)
        hint, texts = seen
        assert torch.equal(hint, expected.movedim(-1, 1))
        assert texts == [float(i) for i in frames]
        return out

    monkeypatch.setattr(net.control_model, "forward", forward)
    monkeypatch.setattr(host.model, "apply_model", apply_model)
    monkeypatch.setattr(pack("nodes.host.tuning.guider").TuningGuider, "denoise", step)
    text, _ = controlled((net, hints(wired)), positive=[[rows, {}]])
    assert len(tune(inflate(host), clip(7), text, steps=6, window=3)[2]["loss"]) == 6


@pytest.mark.parametrize("net", KINDS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_precisions(net, precision):
    text, _ = controlled((net(), hints(range(FRAMES))))
    assert len(tune(inflate(model()), positive=text, precision=precision)[2]["loss"]) == 2


def test_nothing_that_came_in_is_changed(monkeypatch):
    m, net = model(), controlnet()
    text, _ = controlled((net, hints(range(FRAMES))))
    control = text[0][1]["control"]
    before = plain_sample(m), dict(vars(control)), {k: v.clone() for k, v in net.control_model.state_dict().items()}
    tune(inflate(m), positive=text)
    monkeypatch.setattr(pack("nodes.host.tuning.preview").TuningProgress, "after_step", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        tune(inflate(m), positive=text)
    assert torch.equal(plain_sample(m), before[0])
    assert vars(control) == before[1]
    assert torch.equal(control.cond_hint_original, hints(range(FRAMES)).movedim(-1, 1))
    assert all(torch.equal(tensor, before[2][name]) for name, tensor in net.control_model.state_dict().items())


OTHERS = {
    "another hint": lambda: controlled((controlnet(), hints([0, 1, 5])))[0],
    "another strength": lambda: controlled((controlnet(), hints(range(FRAMES))), strength=0.5)[0],
    "another range": lambda: controlled((controlnet(), hints(range(FRAMES))), end_percent=0.5)[0],
    "another ControlNet": lambda: controlled((controlnet(7), hints(range(FRAMES))))[0],
    "a Control-LoRA": lambda: controlled((control_lora(), hints(range(FRAMES))))[0],
    "another Control-LoRA": lambda: controlled((control_lora(7), hints(range(FRAMES))))[0],
    "a T2I-Adapter": lambda: controlled((t2i_adapter(), hints(range(FRAMES))))[0],
    "another T2I-Adapter": lambda: controlled((t2i_adapter(7), hints(range(FRAMES))))[0],
    "one more": lambda: controlled((controlnet(7), hints([0])), (controlnet(), hints(range(FRAMES))))[0],
    "none": caption,
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_only_the_same_hints_are_gone_on_from(other):
    content_hash = pack("nodes.host.resume.key").content_hash
    same, again = (controlled((controlnet(), hints(range(FRAMES))))[0] for _ in range(2))
    assert content_hash(same) == content_hash(again) is not None
    assert content_hash(other()) not in (None, content_hash(same))


def test_no_two_hash_alike():
    hashes = [pack("nodes.host.resume.key").content_hash(make()) for make in OTHERS.values()]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize("net", KINDS)
def test_a_tuning_with_hints_is_gone_on_from(net, folders, monkeypatch):
    wired = [controlled((net(), hints(range(FRAMES))))[0] for _ in range(2)]
    m = inflate(model())
    first = tune(m, positive=wired[0], resume="auto", autosave_every=1)[1]
    monkeypatch.setattr(
        pack("nodes.host.tuning.guider").TuningGuider, "denoise", lambda *args: pytest.fail("tuned already")
    )
    assert same(tune(m, positive=wired[1], resume="auto", autosave_every=1)[1], first)
