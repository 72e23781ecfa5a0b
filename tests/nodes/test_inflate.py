"""Inflating: what it changes, what it must never change, and what it reads from the batch."""

import comfy.model_management
import comfy.samplers
import pytest
import torch

from ..same import same
from .mini import caption, clip, inflate, model, pack, plain_sample, tune

ATTENTIONS = ["FFAM", "SCA", "first-frame", "dense", "per-frame", "middle-frame", "vid2vid-zero", "FateZero"]
TEMPORAL = [
    "STAM",
    "layer norm",
    "layer norm without scale",
    "instance norm",
    "instance norm without scale",
    "IC without SN",
    "none",
]


def custom(m, attention="per-frame", temporal="none", **options):
    return inflate(m, "custom", attention=attention, temporal_module=temporal, **options)


def patched(m, patches):
    m = m.clone()
    m.add_patches(patches)
    return m


def random_lora(m, layer):
    """A stock patch of one layer as large as its weight. Not a constant: layer norm would cancel it."""
    key = f"diffusion_model.input_blocks.1.1.transformer_blocks.0.{layer}.weight"
    weight = m.get_model_object(key)
    delta = torch.randn(weight.shape, generator=torch.Generator().manual_seed(8)) * weight.std()
    return {key: ("diff", (delta,))}


def hooks_left(m):
    return sum(len(x._forward_hooks) for x in m.model.modules())


@pytest.mark.parametrize(
    ("attention", "temporal"), [(a, t) for a in ATTENTIONS for t in (TEMPORAL if a in ATTENTIONS[:5] else ["STAM"])]
)
def test_every_combination_runs_and_leaves_the_plain_model_alone(attention, temporal):
    m = model()
    before = plain_sample(m)
    out = plain_sample(custom(m, attention, temporal))
    assert torch.isfinite(out).all()
    assert same(plain_sample(m), before)
    assert hooks_left(m) == 0


@pytest.mark.parametrize("attention", ATTENTIONS)
@pytest.mark.parametrize("stam_init", ["zero-query", "clamp"])
def test_one_frame_is_the_plain_model(attention, stam_init):
    m = model()
    inflated = custom(m, attention, "STAM", stam_init=stam_init)
    expected = plain_sample(m, frames=1)  # SCA sums the same keys twice: another rounding
    torch.testing.assert_close(
        plain_sample(inflated, frames=1), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
    )


def test_per_frame_without_temporal_module_is_bit_identical():
    m = model()
    assert same(plain_sample(custom(m)), plain_sample(m))


@pytest.mark.parametrize("attention", ["FFAM", "SCA", "dense"])
def test_frames_see_each_other(attention):
    m = model()
    assert not torch.allclose(plain_sample(custom(m, attention)), plain_sample(m), atol=1e-2)


KINDS = {  # of the miniature, from input to output: 32 channels, four times 64, twice 32
    "vid2vid-zero": ["dense", "SCA", "dense", "dense", "SCA", "SCA", "SCA"],
    "FateZero": ["middle-frame"] * 4,  # those of 64 channels
    "middle-frame": ["middle-frame"] * 7,
}


@pytest.mark.parametrize("attention", KINDS)
def test_every_place_has_its_kind(attention, monkeypatch):
    hooks, seen = pack("nodes.host.inflating.attention_hooks"), []

    def spy(q, k, v, *, kind, **options):
        seen.append((kind, q.shape[-1]))
        return real(q, k, v, kind=kind, **options)

    real = hooks.frame_attention
    monkeypatch.setattr(hooks, "frame_attention", spy)
    plain_sample(custom(model(), attention), steps=1)
    assert [kind for kind, _ in seen] == KINDS[attention]
    assert attention != "FateZero" or {width for _, width in seen} == {64}


def test_where_frames_see_only_themselves_a_hook_of_another_node_does_no_harm(caplog):
    """FateZero leaves the first level alone."""
    for place, said in ((("input", 1), False), (("middle", 0), True)):
        m = custom(model(), "FateZero")
        m.set_model_attn1_replace(lambda q, k, v, extra: v, *place)
        plain_sample(m, steps=1)
        assert ("there is no FateZero there" in caplog.text) is said


PUBLISHED = {"group_norm": "pooled", "stam_init": "Tune-A-Video"}
PRESETS = {  # mode -> attention, temporal module, and what else it sets
    "EI²": ("FFAM", "STAM", {}),
    "Tune-A-Video": ("SCA", "layer norm without scale", {}),
    "dense": ("dense", "none", {}),
    "Video-P2P": ("first-frame", "layer norm without scale", PUBLISHED),
    "vid2vid-zero": ("vid2vid-zero", "none", {"group_norm": "pooled"}),
    "FateZero": ("FateZero", "none", {"group_norm": "pooled"}),
}


def without(options, name):
    return {key: value for key, value in options.items() if key != name}


@pytest.mark.parametrize("mode", PRESETS)
def test_modes_are_presets(mode):
    m, (attention, temporal, sets) = model(), PRESETS[mode]
    preset = inflate(m, mode, attention="dense", temporal_module="IC without SN", group_norm="per frame")
    found = plain_sample(preset)
    assert same(found, plain_sample(custom(m, attention, temporal, **sets)))
    for name in sets:  # each of them matters
        assert not torch.allclose(found, plain_sample(custom(m, attention, temporal, **without(sets, name))))


@pytest.mark.parametrize("mode", ["EI²", "Tune-A-Video", "dense"])
def test_other_modes_leave_the_group_norm_and_the_start_to_the_user(mode):
    options = inflate(model(), mode, **PUBLISHED).get_attachment("ei2").options
    assert (options.group_norm, options.stam_init) == ("pooled", "Tune-A-Video")


def test_cond_and_uncond_do_not_mix_and_batching_does_not_matter(monkeypatch):
    """The host may run them in one batch or one by one: the same clip comes out."""
    m = inflate(model())
    together = plain_sample(m)
    monkeypatch.setattr(type(m.model), "memory_required", lambda self, *a, **k: 1e18)
    torch.testing.assert_close(plain_sample(m), together, rtol=0, atol=1e-3)


def test_frame_count_comes_from_the_batch():
    """One inflated model takes clips of any length, in any order."""
    m = inflate(model())
    outputs = [plain_sample(m, frames=n) for n in (2, 5, 1, 2)]
    assert [len(x) for x in outputs] == [2, 5, 1, 2]
    assert same(outputs[0], outputs[3])


@pytest.mark.parametrize(("height", "width"), [(13, 6), (7, 9), (8, 24)])
def test_uneven_sizes(height, width):
    import nodes

    latent = clip(2, height, width)
    m = inflate(model())
    out = nodes.common_ksampler(m, 0, 2, 3.0, "euler", "normal", caption(), caption(3), latent)[0]["samples"]
    assert out.shape == latent["samples"].shape
    assert torch.isfinite(out).all()


def test_inflating_twice_replaces_the_first():
    m = model()
    once, twice = inflate(m, seed=1), inflate(inflate(m, "Tune-A-Video", seed=7), seed=1)
    assert same(plain_sample(once), plain_sample(twice))
    assert len(twice.injections) == len(twice.additional_models) == 1


def test_inflating_tuned_weights_twice_adds_them_once():
    m = model()
    tuned, weights, _ = tune(inflate(m))
    again = inflate(tuned, weights=weights)
    assert same(plain_sample(again), plain_sample(tuned))
    key = next(iter(tuned.patches))
    assert len(tuned.patches[key]) == len(again.patches[key]) == 1
    assert same(plain_sample(inflate(tuned)), plain_sample(inflate(m))), "without weights it is untuned again"


def test_a_patch_of_another_node_on_a_tuned_query_stays():
    """Re-inflating takes away our own differences, and of the other patches on the same weight none."""
    m = model()
    tuned, weights, _ = tune(inflate(m))
    lora = random_lora(m, "attn1.to_q")
    (key,) = lora
    stacked = patched(tuned, lora)
    assert len(stacked.patches[key]) == 2
    deflated, again = pack("nodes.host.inflating.inflate").deflate(stacked), inflate(stacked, weights=weights)
    assert [p[1][1][0] is lora[key][1][0] for p in deflated.patches[key]] == [True]
    assert same(plain_sample(deflated), plain_sample(patched(m, lora)))
    assert not same(plain_sample(deflated), plain_sample(m))
    assert same(plain_sample(inflate(stacked)), plain_sample(patched(inflate(m), lora)))
    assert len(again.patches[key]) == 2
    torch.testing.assert_close(plain_sample(again), plain_sample(stacked), rtol=0, atol=1e-3)


def test_a_dropped_patcher_leaves_nothing_that_acts(monkeypatch):
    """The host may lose an inflated clone without ejecting it: the plain model must not notice."""
    m = model()
    before = plain_sample(m)
    monkeypatch.setattr(pack("nodes.host.inflating.temporal_hook"), "_eject", lambda patcher: None)
    inflated = plain_sample(inflate(m, stam_init="random"))
    assert hooks_left(m) > 0
    assert same(plain_sample(m), before)
    assert not same(inflated, before)


def test_two_inflations_of_one_model_take_turns():
    m = model()
    a, b = inflate(m, stam_init="random", seed=1), inflate(m, "Tune-A-Video")
    first, second = plain_sample(a), plain_sample(b)
    assert same(plain_sample(a), first)
    assert same(plain_sample(b), second)
    assert same(plain_sample(a.clone()), first)


def test_unloading_everything_and_back():
    m = inflate(model())
    before = plain_sample(m)
    comfy.model_management.unload_all_models()
    assert hooks_left(m) == 0
    assert same(plain_sample(m), before)


def test_an_error_in_the_middle_leaves_the_plain_model_alone(monkeypatch):
    m = model()
    before = plain_sample(m)
    patch = pack("nodes.host.inflating.attention_hooks")

    def fail(*args, **kwargs):
        raise RuntimeError("in the middle")

    with monkeypatch.context() as context:
        context.setattr(patch, "frame_attention", fail)
        with pytest.raises(RuntimeError, match="in the middle"):
            plain_sample(inflate(m))
    assert same(plain_sample(m), before)


def test_of_two_inflated_models_on_one_unet_each_keeps_to_its_own_modules(monkeypatch):
    """Should the host leave the other's hooks in, calls with this one's token must not run them."""
    hook, m = pack("nodes.host.inflating.temporal_hook"), model()
    other, without = inflate(m), plain_sample(inflate(m, mode="custom", temporal_module="none"))
    bank = other.get_additional_models_with_key("ei2")[0].model
    token = other.model_options["transformer_options"]["ei2"]
    monkeypatch.setattr(hook, "_inject", lambda patcher: hook.attach(patcher.model, dict(bank.items()), token))
    assert same(plain_sample(inflate(m, seed=34)), without)
    assert not same(plain_sample(other), without)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("layer", ["attn1.to_q", "attn1.to_k", "ff.net.2"])
def test_lora_before_or_after(layer, before):
    """A stock weight patch composes in either order, and is what baking it into the checkpoint would be."""
    m, baked = model(), model()
    lora = random_lora(m, layer)
    for key, (_, (delta,)) in lora.items():
        baked.get_model_object(key).add_(delta)
    out = inflate(patched(m, lora)) if before else patched(inflate(m), lora)
    assert same(plain_sample(out), plain_sample(inflate(baked)))
    assert not torch.allclose(plain_sample(out), plain_sample(inflate(m)), atol=1e-2)


@pytest.mark.parametrize("layer", ["attn1.to_k", "attn1.to_q"])
def test_the_fingerprint_is_the_checkpoints_whatever_is_loaded(layer):
    """The host writes a LoRA into the weights themselves and keeps the originals aside."""
    unet = pack("nodes.host.inflating.unet")
    m = model()
    lora, before = random_lora(m, layer), unet.base_fingerprint(m, unet.describe(m))
    other = patched(m, lora)
    comfy.model_management.load_models_gpu([other])
    (key,) = lora
    assert key in other.backup and not same(other.backup[key].weight, m.get_model_object(key))
    for x in (m, other, inflate(other)):
        assert unet.base_fingerprint(x, unet.describe(x)) == before


def test_an_earlier_attention_hook_is_replaced_with_a_warning(caplog):
    m = model().clone()
    m.set_model_attn1_replace(lambda q, k, v, extra: v, "input", 1)
    inflate(m)
    assert "input 1 is replaced" in caplog.text


def test_tiles_fall_back_to_plain_attention():
    """HyperTile cuts the tokens into tiles: FFAM cannot know their frame, so it must not mix them."""

    def tiled(m):
        m = m.clone()
        m.set_model_attn1_patch(lambda q, k, v, e: (q.reshape(2 * len(q), -1, q.shape[-1]),) * 3)
        m.set_model_attn1_output_patch(lambda n, e: n.reshape(len(n) // 2, -1, n.shape[-1]))
        return m

    m = model()
    assert same(plain_sample(tiled(custom(m, "FFAM"))), plain_sample(tiled(m)))
    assert not same(plain_sample(tiled(m)), plain_sample(m))
