"""Group norms over all frames of a clip, against a UNet whose norms see tensors of five dimensions."""

import comfy.model_management as mm
import pytest
import torch
from torch import nn

from ..same import same
from .mini import inflate, invert, model, pack, plain_sample, sample, tune
from .test_composition import OFFLOADED, SMALL

POOLED = {"group_norm": "pooled"}
ALONE = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}


class Norm5D(nn.GroupNorm):
    """Of a batch of so many clips, each (c, f, h, w): the slow reference."""

    def __init__(self, norm, clips):
        super().__init__(norm.num_groups, norm.num_channels, norm.eps)
        self.load_state_dict(norm.state_dict())
        self.clips = clips

    def forward(self, x):
        clips = torch.stack([torch.stack(list(frames), dim=1) for frames in x.chunk(self.clips)])  # (b, c, f, h, w)
        return torch.cat([torch.stack(list(c.unbind(1))) for c in super().forward(clips)])


def in_five_dimensions(m, clips):
    """The norms of residual blocks and the last one; those at the entry of transformers stay."""
    unet = m.model.diffusion_model
    names = [name for name, x in unet.named_modules() if isinstance(x, nn.GroupNorm) and not name.endswith(".norm")]
    assert len(names) == 2 * 8 + 1
    for name in names:
        parent, child = name.rsplit(".", 1)
        unet.get_submodule(parent)._modules[child] = Norm5D(unet.get_submodule(name), clips).requires_grad_(False)
    return m


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * float(b.abs().max()))


@pytest.mark.parametrize(("mode", "frames"), [({}, 1), ({"mode": "Tune-A-Video"}, 4), (ALONE, 4), ({}, 20)])
def test_equals_the_slow_reference(mode, frames):
    """Cond and uncond are two clips of one call; 20 frames go by windows, and a norm sees one window."""
    found = plain_sample(inflate(model(), **mode, **POOLED), frames=frames, steps=2)
    close(found, plain_sample(inflate(in_five_dimensions(model(), 2), **mode), frames=frames, steps=2))
    assert frames == 1 or not torch.allclose(found, plain_sample(inflate(model(), **mode), frames=frames, steps=2))


def test_cond_and_uncond_do_not_mix(monkeypatch):
    """The host runs them one by one where memory is short."""
    m = inflate(model(), **POOLED)
    together = plain_sample(m)
    monkeypatch.setattr(type(m.model), "memory_required", lambda self, *a, **k: 1e18)
    torch.testing.assert_close(plain_sample(m), together, rtol=0, atol=1e-3)


def test_inversion_and_sampling():
    ways = inflate(model(), **POOLED), inflate(in_five_dimensions(model(), 1))
    noise = [invert(m)[0] for m in ways]
    close(*(latent["samples"] for latent in noise))
    close(*(sample(m, noise[0]) for m in ways))


def test_per_frame_is_the_default_and_the_last_inflation_counts():
    m = model()
    expected = plain_sample(inflate(m))
    for same_as in (inflate(m, group_norm="per frame"), inflate(inflate(m, **POOLED))):
        assert same(plain_sample(same_as), expected)
    assert same(plain_sample(inflate(inflate(m), **POOLED)), plain_sample(inflate(m, **POOLED)))


@pytest.mark.parametrize("error", [RuntimeError, mm.InterruptProcessingException])
def test_the_host_is_as_it_was(monkeypatch, error):
    """Also after an error or a cancel in the middle of a call."""
    m = model()
    before = plain_sample(m)

    def fail(*args, **kwargs):
        raise error("in the middle")

    plain_sample(inflate(m, **POOLED))
    with monkeypatch.context() as context:
        context.setattr(pack("nodes.host.inflating.attention_hooks"), "frame_attention", fail)
        with pytest.raises(error):
            plain_sample(inflate(m, **POOLED))
    assert [name for name, x in m.model.named_modules() if "forward" in vars(x)] == []
    assert same(plain_sample(m), before)


def test_a_forward_that_was_replaced_already_is_put_back():
    norm = nn.GroupNorm(1, 2)
    norm.forward = own = lambda x: x
    with pack("nodes.host.inflating.forwards").replaced_forwards({norm: lambda x: x + 1}):
        assert float(norm(torch.zeros(()))) == 1
    assert norm.forward is own


def gradients_of_a_step(m, monkeypatch, **options):
    found, step = [], torch.optim.AdamW.step

    def spy(self, *args, **kwargs):
        found.extend(p.grad.clone() for group in self.param_groups for p in group["params"])
        return step(self, *args, **kwargs)

    with monkeypatch.context() as context:
        context.setattr(torch.optim.AdamW, "step", spy)
        tune(m, steps=1, **options)
    return found


@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_gradients_of_tuning_equal_the_reference(checkpointing, monkeypatch):
    """A block that is computed again in the backward pass has the norms of its forward pass."""
    expected = gradients_of_a_step(inflate(in_five_dimensions(model(), 1)), monkeypatch, gradient_checkpointing="off")
    m = model()
    found = gradients_of_a_step(inflate(m, **POOLED), monkeypatch, gradient_checkpointing=checkpointing)
    assert len(found) == len(expected) > 0
    largest = max(float(g.abs().max()) for g in expected)
    assert all(float((a - b).abs().max()) < 1e-5 * largest for a, b in zip(found, expected, strict=True))
    assert [name for name, x in m.model.named_modules() if "forward" in vars(x)] == []


def test_torch_compile_notices():
    """A block that is compiled for one model is compiled again when its norms compute otherwise for another."""
    block = model(**SMALL).model.diffusion_model.input_blocks[1][0]
    made, pooled = torch.compile(block, backend="eager"), pack("nodes.host.inflating.group_norms").pooled
    x, emb = torch.randn(6, 32, 4, 4), torch.randn(6, 128)
    torch._dynamo.reset()
    outputs = []
    for frames in (1, 3, 6, 1):
        with pooled(block, frames):
            outputs.append(made(x, emb))
            assert same(outputs[-1], block(x, emb))
    outputs.append(made(x, emb))
    assert same(outputs[-1], outputs[0])
    assert not any(torch.allclose(outputs[0], other) for other in outputs[1:3])


@pytest.mark.parametrize("budget", OFFLOADED.values(), ids=OFFLOADED)
def test_a_model_that_is_loaded_in_parts(budget, monkeypatch):
    m = inflate(model(), **POOLED)
    expected = plain_sample(m)
    mm.unload_all_models()
    load = mm.LoadedModel.model_load
    monkeypatch.setattr(mm.LoadedModel, "model_load", lambda self, *a, **k: load(self, budget(self.model), **k))
    close(plain_sample(m), expected)
    assert m.model.model_lowvram
    mm.unload_all_models()


def test_weights_fit_what_they_were_tuned_with(caplog):
    error, m = pack("ei2_modules.errors").WeightsError, model()
    tuned, weights, _ = tune(inflate(m, **POOLED))
    assert weights.header.options["group_norm"] == "pooled"
    assert same(plain_sample(inflate(m, weights=weights, **POOLED)), plain_sample(tuned))
    with pytest.raises(error, match="tuned with group norm 'pooled', but the node asks for 'per frame'"):
        inflate(m, weights=weights)
    assert "group norm" not in caplog.text
    inflate(m, weights=weights, allow_mismatch=True)
    assert "tuned with group norm 'pooled'" in caplog.text


def test_a_motion_model_of_animatediff_is_refused():
    for options, refused in ((POOLED, True), ({}, False)):
        m = inflate(model(), **options)
        m.set_additional_models("ADE", [])
        plain_sample(m, steps=1)
        m.set_additional_models("ADE", [model(**SMALL)])
        if refused:
            with pytest.raises(pack("ei2_modules.errors").EI2Error, match="changes the UNet's group norms itself"):
                plain_sample(m, steps=1)
        else:
            plain_sample(m, steps=1)


def test_a_workflow_without_the_input_still_runs():
    """It is the last input, and an optional one: a saved prompt has no value for it."""
    node = pack("nodes.inflate_unet").InflateUNet
    last = node.define_schema().inputs[-1]
    assert (last.id, last.optional, last.default) == ("group_norm", True, "per frame")
    assert node.validate_inputs(mode="EI²") is True
    assert "must be one of per frame, pooled" in node.validate_inputs(group_norm="batch")
    made = node.execute(model(), "EI²", 2, "STAM", "FFAM", "random", 33).args[0]
    assert same(plain_sample(made), plain_sample(inflate(model())))
