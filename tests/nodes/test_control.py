"""Attention control beside a slow reference, and beside what must make no difference to it."""

import comfy.model_management
import comfy.samplers
import pytest
import torch
from einops import rearrange

from . import controlling
from .controlling import (
    NONE,
    NOTHING,
    OWN_TEXT,
    PROMPT,
    control,
    controls,
    edited,
    fitted,
    guider,
    inverted,
    prompt_edit,
)  # fmt: skip
from .mini import caption, clip, controlled, controlnet, hints, inflate, model, pack, plain_sample, run, sample
from .other_nodes import NODES, compiled

maps = pack("ei2_modules.attention.control.maps")
PER_FRAME = {"mode": "custom", "attention": "per-frame", "temporal_module": "none"}
SHARES = {"cross_share": 0.8, "self_share": 0.6}
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}


def smooth(**options):
    return inflate(model(scale=0.05), **options)


def one_step(m, latent, chosen, **options):
    """What the guider predicts at the first step."""
    found = guider(m, latent, chosen, **options)
    seen = []
    original = control.ControlledGuider.predict_noise
    found.predict_noise = lambda *args, **kwargs: seen.append(original(found, *args, **kwargs)) or seen[-1]
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    samples = latent["samples"]
    found.sample(torch.zeros_like(samples), samples, sampler, sigmas[:2], disable_pbar=True)
    return seen[0]


def edited_maps(source, target, alignment, weights):
    """(..., l, s) and (..., l, t) -> (..., l, t)."""
    found = target + alignment.shared * (source @ alignment.mapper - target)
    return found if weights is None else found * weights


def by_hand(m, latent, edit, cross, own, weights=None):
    """The same with whole maps in memory, layer after layer, in the order that the UNet runs them."""
    kept = {"attn1": [], "attn2": []}

    def attend(q, k, v, heads, weigh=lambda maps: maps):
        v = rearrange(v, "b s (h d) -> b h s d", h=heads)
        return rearrange(weigh(maps.softmax_maps(q, k, heads)) @ v, "b h l d -> b l (h d)")

    def recording(name):
        def hook(q, k, v, extra):
            kept[name].append((q, k))
            return attend(q, k, v, extra["n_heads"])

        return hook

    def self_hook(q, k, v, extra):
        q_src, k_src = (x.repeat(2, 1, 1) for x in kept["attn1"].pop(0))
        return attend(*((q_src, k_src) if own else (q, k)), v, extra["n_heads"])

    def text_hook(q, k, v, extra):
        heads, half = extra["n_heads"], len(q) // 2
        source = maps.softmax_maps(*kept["attn2"].pop(0), heads)
        edit_maps = lambda found: edited_maps(source, found, edit.alignment, weights)  # noqa: E731
        first = [text == 0 for text in extra["cond_or_uncond"]].index(True)  # whose maps are edited
        rows = [slice(0, half), slice(half, None)]
        out = [attend(q[r], k[r], v[r], heads, edit_maps if i == first and cross else lambda x: x)
               for i, r in enumerate(rows)]  # fmt: skip
        return torch.cat(out)

    def predicted(hooks, conds):
        clone = m.clone()
        for name, hook in hooks.items():
            for place in pack("nodes.host.inflating.inflate").inflated_of(m, "").spec.places():
                clone.set_model_patch_replace(hook, name, *place)
        found = []

        class Guider(comfy.samplers.CFGGuider):
            def predict_noise(self, x, timestep, model_options=None, seed=None):
                found.append(super().predict_noise(x, timestep, model_options, seed))
                return found[-1]

        made = Guider(clone)
        made.set_conds(*conds)
        made.set_cfg(3.0 if conds[0] is PROMPT else 1.0)
        sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
        made.sample(torch.zeros_like(latent["samples"]), latent["samples"], sampler, sigmas[:2], disable_pbar=True)
        return found[0]

    predicted({name: recording(name) for name in kept}, (OWN_TEXT, OWN_TEXT))
    return predicted({"attn1": self_hook, "attn2": text_hook}, (PROMPT, NOTHING))


@pytest.mark.parametrize(
    ("cross", "own", "weights", "target"),
    [
        (True, False, None, controlling.TARGET),
        (False, True, None, controlling.TARGET),
        (True, True, None, controlling.TARGET),
        (True, True, {"green": 2.5, "on": 0.0}, controlling.TARGET),
        (True, True, None, "a big red circle on green"),  # inserted words keep maps of their own
    ],
)
def test_the_first_step_beside_whole_maps(cross, own, weights, target):
    m = smooth(**PER_FRAME)
    edit = prompt_edit(target=target, weights=weights)
    latent = inverted(m)
    chosen = controls(edit, cross_share=float(cross), self_share=float(own))
    expected = by_hand(m, latent, edit, cross, own, edit.weights)
    torch.testing.assert_close(one_step(m, latent, chosen), expected, rtol=0, atol=2e-4)
    free = one_step(m, latent, controls(edit, **NONE))
    assert (free - expected).abs().max() > 1e-2


@pytest.mark.parametrize("options", [{}, PER_FRAME, {"mode": "Tune-A-Video"}])
def test_nothing_taken_changes_no_bit(options):
    m = smooth(**options)
    latent = inverted(m)
    assert torch.equal(edited(m, latent, controls(**NONE)), edited(m, latent))


@pytest.mark.parametrize(
    "chosen",
    [
        SHARES,
        SHARES | {"blend_threshold": 0.4},
        {"cross_share": 0.0, "self_share": 0.0, "temporal_share": 0.5},
        {"cross_share": 0.0, "self_share": 0.0, "feature_share": 0.5},
        {"cross_share": 0.2, "self_share": 0.0, "noise_share": 1.0},
        SHARES | {"fuse_threshold": 0.5},
        SHARES | {"source": "own prediction"},
        SHARES | {"finest": 0.5},
    ],
)
def test_each_share_does_something_twice_the_same_and_leaves_the_model_alone(chosen):
    m = smooth()
    latent = inverted(m)
    free, before = edited(m, latent), plain_sample(m)
    found = edited(m, latent, controls(**chosen))
    assert found.isfinite().all()
    assert (found - free).abs().max() > 1e-3
    assert torch.equal(edited(m, latent, controls(**chosen)), found)
    assert torch.equal(plain_sample(m), before)
    assert torch.equal(edited(m, latent), free)


def test_an_edit_to_the_same_words_without_guidance_is_the_clip():
    """Everything taken along the inversion: the source pass and the edit are one and the same at the first step."""
    m = smooth()
    latent = inverted(m)
    edit = prompt_edit(target=controlling.SOURCE, texts=(OWN_TEXT, OWN_TEXT))
    both = [controls(edit, cross_share=share, self_share=share, feature_share=share) for share in (1.0, 0.0)]
    taken, free = (one_step(m, latent, chosen, positive=OWN_TEXT, cfg=1.0) for chosen in both)
    torch.testing.assert_close(taken, free, rtol=0, atol=1e-4)


def test_split_calls_are_the_same(monkeypatch):
    """With too little memory for two texts at once the host runs them one by one."""
    m = smooth()
    latent, chosen = inverted(m), controls(**SHARES, blend_threshold=0.3)
    together = edited(m, latent, chosen)
    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda *a, **k: 1)
    calls, original = [], m.model.apply_model
    monkeypatch.setattr(m.model, "apply_model", lambda x, *a, **k: calls.append(len(x)) or original(x, *a, **k))
    torch.testing.assert_close(edited(m, latent, chosen), together, rtol=0, atol=1e-4)
    assert set(calls) == {3}


def test_windows_of_a_long_clip_each_take_their_own():
    """Frames that do not see each other come out as in a short clip."""
    m = smooth(**PER_FRAME)
    chosen = controls(**SHARES, blend_threshold=0.3)
    long = clip(20)
    short = {"samples": long["samples"][4:9]}
    found = [edited(m, inverted(m, latents, 3), chosen) for latents in (long, short)]
    torch.testing.assert_close(found[0][4:9], found[1], rtol=0, atol=1e-3)


def test_windows_that_see_each_other():
    m = smooth()
    latent = inverted(m, clip(20), 2)
    found = edited(m, latent, controls(**SHARES))
    assert found.isfinite().all()
    assert (found - edited(m, latent)).abs().max() > 1e-3


def custom(m, latent, chosen, sampler=None, sigmas=None, begins=None, noise=None):
    """begins: another LATENT than the guider's. noise: a seed."""
    import comfy_extras.nodes_custom_sampler as nodes

    ours, grid, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    sampler, sigmas = sampler or ours, grid if sigmas is None else sigmas
    noise = (nodes.RandomNoise.execute(noise) if noise else nodes.DisableNoise.execute()).args[0]
    out = nodes.SamplerCustomAdvanced.execute(noise, guider(m, latent, chosen), sampler, sigmas, begins or latent)
    return out.args[0]["samples"]


@pytest.mark.parametrize("chosen", [SHARES, SHARES | {"blend_threshold": 0.4}, {"noise_share": 1.0}])
def test_edit_guider_is_the_ei2_sampler(chosen):
    m = smooth()
    latent = inverted(m)
    assert torch.equal(custom(m, latent, controls(**chosen)), edited(m, latent, controls(**chosen)))


@pytest.mark.parametrize(
    ("name", "fits"), [("euler", True), ("heun", True), ("dpmpp_2m", True), ("dpm_2", False), ("dpmpp_sde", False)]
)
def test_stock_samplers_of_one_call_a_step(name, fits):
    m = smooth()
    latent = inverted(m)
    arguments = m, latent, controls(**SHARES), comfy.samplers.sampler_object(name)
    if fits:
        assert custom(*arguments).isfinite().all()
    else:
        with pytest.raises(Exception, match=r"at sigma .*EI² DDIM Sampler"):
            custom(*arguments)


def ends_of_source(m, latent, monkeypatch, **chosen):
    """The clip that is sampled beside an edit."""
    seen, original = [], control.OwnPrediction.predicted

    def watched(self, place, denoised):
        original(self, place, denoised)
        seen.append(self.latents[place - 1])

    monkeypatch.setattr(control.OwnPrediction, "predicted", watched)
    edited(m, latent, controls(cross_share=1.0, self_share=0.0, **chosen))
    grid = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)[1]
    return m.model.process_latent_out(seen[-1] / (1 + grid[-1] ** 2).sqrt())


def test_own_prediction_is_the_source_sampled_beside(monkeypatch):
    m = smooth()
    latent = inverted(m)
    plain = edited(m, latent, positive=OWN_TEXT, cfg=1.0)
    found = ends_of_source(m, latent, monkeypatch, source="own prediction")
    torch.testing.assert_close(found, plain, rtol=0, atol=1e-4)


def test_null_text_leads_the_source_back_under_guidance(monkeypatch):
    """Nearer to the clip than guided sampling without it; the edit has it too where that is chosen."""
    m = smooth()
    latents = clip()
    latent = inverted(m, latents)
    texts = [fitted(m, latent, branch=branch) for branch in ("source only", "source and edit")]
    guided = edited(m, latent, positive=OWN_TEXT)
    found = ends_of_source(m, latent, monkeypatch, source="null text", null_text=texts[0])
    distance = lambda x: (x - latents["samples"]).norm()  # noqa: E731
    assert distance(found) < 0.7 * distance(guided)
    chosen = {"source": "null text", **NONE}
    assert torch.equal(edited(m, latent, controls(**chosen, null_text=texts[0])), edited(m, latent))
    assert not torch.equal(edited(m, latent, controls(**chosen, null_text=texts[1])), edited(m, latent))


def test_the_source_under_null_text_is_guided(monkeypatch):
    """As an edit to its own caption whose negative has the null text."""
    m = smooth()
    latent = inverted(m)
    same = prompt_edit(target=controlling.SOURCE, texts=(OWN_TEXT, OWN_TEXT))
    both = fitted(m, latent, branch="source and edit")
    expected = edited(m, latent, controls(same, source="null text", null_text=both, **NONE), OWN_TEXT)
    found = ends_of_source(m, latent, monkeypatch, source="null text", null_text=both)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert (expected - edited(m, latent, positive=OWN_TEXT, cfg=1.0)).abs().max() > 0.02


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, latent, text: edited(m, latent, controls(source="null text")), "nothing is wired into null_text"),
        (
            lambda m, latent, text: edited(m, latent, controls(source="null text", null_text=text), cfg=5.0),
            "fitted for cfg 3, and cfg is 5",
        ),
        (
            lambda m, latent, text: edited(m, inverted(m, clip(2)), controls(source="null text", null_text=text)),
            "3 frames in 4 steps, and this latent holds 2 frames",
        ),
        (
            lambda m, latent, text: edited(
                m, latent, controls(prompt_edit(texts=(caption(9), PROMPT)), source="null text", null_text=text)
            ),
            "fitted under another text than Prompt Edit's caption",
        ),
    ],
)
def test_null_text_of_something_else_is_refused(change, says):
    m = smooth()
    latent = inverted(m)
    with pytest.raises(Exception, match=says):
        change(m, latent, fitted(m, latent))


@pytest.mark.parametrize("source", ["along the inversion", "own prediction"])
def test_mask_holds_after_the_last_share(source):
    """The clip is still put back outside when nothing else is taken from it any more."""
    m = smooth()
    latents = clip()
    latent = inverted(m, latents)
    mask = torch.zeros(1, 64, 64)
    chosen = {"cross_share": 0.3, "self_share": 0.0, "source": source}
    own = edited(m, latent, positive=OWN_TEXT, cfg=1.0)
    expected = own if source == "own prediction" else latents["samples"]
    torch.testing.assert_close(edited(m, latent, controls(**chosen, mask=mask)), expected, rtol=0, atol=0.02)
    assert (edited(m, latent, controls(**chosen)) - expected).abs().max() > 0.1


@pytest.mark.parametrize("source", ["along the inversion", "own prediction"])
def test_a_part_of_the_sigmas(source):
    """As behind Split Sigmas: the source begins where the sampling does."""
    m = smooth()
    latent, chosen = inverted(m), controls(**SHARES, source=source)
    grid = grid_of(m, latent)
    half = {"samples": custom(m, latent, chosen, sigmas=grid[:3])}
    assert custom(m, latent, chosen, sigmas=grid[2:], begins=half).isfinite().all()


@pytest.mark.parametrize("name", ["uni_pc", "ipndm"])
def test_a_sampler_that_runs_away_from_a_mask_is_stopped(name):
    m = smooth()
    latent, mask = inverted(m, steps=25), torch.cat([torch.zeros(1, 8, 4), torch.ones(1, 8, 4)], 2)
    assert custom(m, latent, controls(**SHARES), comfy.samplers.sampler_object(name)).isfinite().all()
    with pytest.raises(Exception, match=r"strays from the clip .* off by [\d.]+ times .* Take euler"):
        custom(m, latent, controls(**SHARES, mask=mask), comfy.samplers.sampler_object(name))


def grid_of(m, latent, **options):
    return run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0, **options)[1]


BEGINNINGS = {
    "every second step": (lambda m, latent: {"sigmas": grid_of(m, latent)[::2]}, "go from 4.* to .*, and the 4 steps"),
    "upwards": (lambda m, latent: {"sigmas": grid_of(m, latent).flip(0)}, "go from 0.029 to "),
    "other steps": (lambda m, latent: {"sigmas": grid_of(m, inverted(m, steps=7))}, "at sigma 6.*takes other steps"),
    "no numbers": (lambda m, latent: {"sigmas": grid_of(m, latent) * float("nan")}, "at sigma nan"),
    "noise on noise": (lambda m, latent: {"noise": 5}, "Wire Disable Noise"),
    "another clip": (lambda m, latent: {"begins": inverted(m, clip(seed=9))}, r"differ by \d+%. Wire the same latent"),
    "the clip itself": (lambda m, latent: {"begins": clip()}, "differ by .*DDIM Invert Video into both"),
    "more frames": (lambda m, latent: {"begins": inverted(m, clip(5))}, r"\(5, 4, 8, 8\), .* of \(3, 4, 8, 8\)"),
    "a video latent": (lambda m, latent: {"begins": {"samples": torch.zeros(1, 4, 3, 8, 8)}}, r"\(1, 4, 3, 8, 8\)"),
    "the noise half-way": (
        lambda m, latent: {"sigmas": grid_of(m, latent, strength=0.5)}, "at sigma 0.70 with the noise of sigma 4.12",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("wrong", "says"), BEGINNINGS.values(), ids=BEGINNINGS)
@pytest.mark.parametrize("source", ["along the inversion", "own prediction"])
def test_what_a_sampling_cannot_begin_with_is_refused_before_any_pass(wrong, says, source, monkeypatch):
    m = smooth()
    latent = inverted(m)
    options = wrong(m, latent)
    monkeypatch.setattr(m.model, "apply_model", lambda *args, **kwargs: pytest.fail("a pass"))
    with pytest.raises(Exception, match=says):
        custom(m, latent, controls(**SHARES, source=source), **options)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_mask_keeps_the_clip_outside(value):
    m = smooth()
    latents = clip()
    latent = inverted(m, latents)
    mask = torch.zeros(1, 64, 64)
    mask[:, :, 32:] = value
    found = edited(m, latent, controls(**SHARES, mask=mask))
    torch.testing.assert_close(found[..., :4], latents["samples"][..., :4], rtol=0, atol=0.02)
    changed = (found[..., 4:] - latents["samples"][..., 4:]).abs().max()
    assert changed > 0.05 if value else changed < 0.02


def attention_control(**chosen):
    """EI2_CONTROL by the node."""
    shares = dict.fromkeys(("temporal_share", "feature_share", "blend_threshold", "noise_share"), 0.0)
    given = {"kind": "custom", **SHARES, **shares, "source": "along the inversion", **chosen}
    return run("attention_control.AttentionControl", prompt_edit=prompt_edit(), **given)[0]


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (lambda mask: mask.bool(), None),
        (lambda mask: mask.byte(), None),
        (lambda mask: 255 * mask, "from 0 to 255: below 0 is taken for 0"),
        (lambda mask: 2 * mask - 1, "from -1 to 1"),
    ],
)
def test_masks_of_other_types_and_values(made, says, caplog):
    m, mask = smooth(), torch.zeros(1, 64, 64)
    mask[:, :, 32:] = 1
    latent = inverted(m)
    found = edited(m, latent, attention_control(mask=made(mask)))
    assert torch.equal(found, edited(m, latent, controls(**SHARES, mask=mask)))
    assert says in caplog.text if says else "mask" not in caplog.text


@pytest.mark.parametrize("mask", [torch.full((3, 8, 8), float("nan")), torch.ones(1, 8, 8) / 0, torch.ones(3, 0, 8)])
def test_a_mask_without_numbers_is_refused(mask):
    with pytest.raises(Exception, match=r"mask of Attention Control of shape \([13], \d, 8\) is empty or holds values"):
        attention_control(mask=mask)


def test_local_blend_keeps_the_clip_outside_its_words():
    """With a threshold that nothing passes but the greatest, and words that must stay beside it."""
    m = smooth()
    latents = clip()
    latent = inverted(m, latents)
    one = edited(m, latent, controls(**SHARES, blend_threshold=0.98, dilation=0))
    same = (one - latents["samples"]).abs().amax(1) < 0.02
    assert 0.2 < same.float().mean() < 1
    less = edited(m, latent, controls(prompt_edit(blend="-circle"), **SHARES, blend_threshold=0.05, dilation=0))
    assert ((less - latents["samples"]).abs().amax(1) < 0.02).any()


def test_the_blend_begins_where_it_is_said():
    m = smooth()
    latent = inverted(m)
    free = edited(m, latent, controls(**SHARES))
    late, always = (edited(m, latent, controls(**SHARES, blend_threshold=0.9, blend_start=s)) for s in (1.0, 0.0))
    assert torch.equal(late, free)
    assert not torch.equal(always, free)


@pytest.mark.parametrize(
    ("share", "cross", "other"), [(0.0, 0, 0), (0.2, 2, 2), (0.5, 5, 5), (0.8, 8, 8), (1.0, 10, 10)]
)
def test_shares_end_at_the_very_step(monkeypatch, share, cross, other):
    """Of ten: twice a tenth is not more than two tenths, whatever floating point says of 1 - 8/10."""
    m = smooth()
    latent, taken, blended = inverted(m, steps=10), [], []
    step, blend = control.ControlledGuider._step, control.LocalBlend.__call__
    monkeypatch.setattr(
        control.ControlledGuider, "_step", lambda self, *args: taken.append(step(self, *args)) or taken[-1]
    )
    monkeypatch.setattr(
        control.LocalBlend, "__call__", lambda self, *args: blended.append(len(taken)) or blend(self, *args)
    )
    shares = dict.fromkeys(("cross_share", "self_share", "temporal_share", "feature_share"), share)
    edited(m, latent, controls(**shares, blend_threshold=0.4, blend_start=share))
    found = {name: [step.takes(name) for step in taken] for name in ("cross", "self", "temporal", "feature")}
    assert found == {name: [i < (cross if name == "cross" else other) for i in range(10)] for name in found}
    assert blended == list(range(other + 1, 11))


def test_a_fused_edit_looks_at_the_source_of_each_step(monkeypatch):
    """With no pass more than a step has: what an earlier one saw is not asked."""
    m = smooth()
    latent, made, calls = inverted(m), [], []
    step, apply_model = control.ControlledGuider._step, m.model.apply_model
    monkeypatch.setattr(
        control.ControlledGuider, "_step", lambda self, *args: made.append(step(self, *args)) or made[-1]
    )
    monkeypatch.setattr(m.model, "apply_model", lambda x, *a, **k: calls.append(len(x)) or apply_model(x, *a, **k))
    edited(m, latent, controls(cross_share=1.0, self_share=0.5, fuse_threshold=0.5))
    assert sum(calls) == 4 * 3 * 3  # steps, texts, frames
    assert [bool(step.fusing.sums) for step in made] == [True, True, False, False]
    first, second = (step.fusing.relative() for step in made[:2])
    assert not torch.equal(first, second)


def test_controlnet_is_seen_by_edit_and_source():
    m = smooth()
    latent, net = inverted(m), controlnet()
    positive, _ = controlled((net, hints(range(3))), positive=PROMPT, negative=NOTHING)
    chosen = controls(cross_share=1.0, self_share=1.0)
    plain = edited(m, latent, chosen)
    both = edited(m, latent, chosen, positive)
    assert (both - plain).abs().max() > 1e-3
    calls, original = [], net.control_model.forward
    net.control_model.forward = lambda *a, **k: calls.append(1) or original(*a, **k)
    try:
        found = guider(m, latent, chosen, positive)
        assert "control" in found.original_conds["caption"][0]
    finally:
        net.control_model.forward = original


CUTS = ("HyperTile", "Token Merging")  # tokens of self-attention, at random: not alike for the clip and its edit


@pytest.mark.parametrize("name", NODES)
def test_beside_other_nodes(name):
    m = NODES[name](smooth())
    latent = inverted(m, clip(3, 16, 16), 2)
    if name in CUTS:
        with pytest.raises(Exception, match=f"Attention control .*{name}"):
            edited(m, latent, controls(**SHARES))
        assert edited(m, latent, controls(cross_share=0.5, self_share=0.0)).isfinite().all()
        return
    found = edited(m, latent, controls(**SHARES))
    assert found.isfinite().all()
    assert (found - edited(m, latent)).abs().max() > 1e-4


def test_what_another_node_adds_to_text_attention_stays():
    """As IP-Adapter: plain attention and something beside it."""

    def adapter(q, k, v, extra):
        from comfy.ldm.modules.attention import optimized_attention

        return optimized_attention(q, k, v, extra["n_heads"]) + 0.3 * q

    m = smooth(**PER_FRAME)
    latent, chosen = inverted(m), controls(cross_share=1.0, self_share=0.0)
    other = m.clone()
    for place in pack("nodes.host.inflating.inflate").inflated_of(m, "").spec.places():
        other.set_model_patch_replace(adapter, "attn2", *place)
    first, without = one_step(other, latent, chosen), one_step(m, latent, chosen)
    free = one_step(other, latent, controls(**NONE)) - one_step(m, latent, controls(**NONE))
    assert (first - without).abs().max() > 0.1 * free.abs().max() > 0


def test_cancel_leaves_the_model_as_it_was(monkeypatch):
    m = smooth()
    latent, before = inverted(m), plain_sample(m)

    def cancel(*args):
        raise comfy.model_management.InterruptProcessingException()

    monkeypatch.setattr(control.ControlledGuider, "_blended", cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        edited(m, latent, controls(**SHARES))
    monkeypatch.undo()
    assert torch.equal(plain_sample(m), before)


LOOKS, FUSES = {"noise_share": 1.0}, SHARES | {"fuse_threshold": 0.3}  # before the steps; in each


@pytest.mark.parametrize(
    ("chosen", "call", "step"),
    [*((LOOKS, *row) for row in ((1, 1), (3, 3), (4, 4), (5, 1), (8, 2))),
     *((FUSES, *row) for row in ((1, 1), (2, 1), (3, 2), (4, 2)))],
)  # fmt: skip
def test_values_that_are_not_finite_are_said_wherever_they_arise(call, step, chosen, monkeypatch):
    """In a look at where words are seen, which else would see none, in the source's pass and in the edit's."""
    m = smooth()
    latent, calls = inverted(m), []

    def spoil(module, given, out):
        calls.append(0)
        return out * (float("nan") if len(calls) == call else 1)

    hook = m.model.diffusion_model.middle_block[1].register_forward_hook(spoil)
    try:
        with pytest.raises(Exception, match=rf"not finite at step {step} of 4 \(sigma .*It computes in float32"):
            edited(m, latent, controls(**chosen))
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda m, latent: edited(m, latent, controls(), positive=OWN_TEXT), "is not the prompt of Prompt Edit"),
        (lambda m, latent: edited(m, bare(noisy(m)), controls(), steps=4), "Save Latent drops them"),
        (
            lambda m, latent: edited(m, bare(noisy(m)), controls(noise_share=1.0, source="own prediction"), steps=4),
            "with fresh noise",
        ),
        (
            lambda m, latent: edited(m, bare(noisy(m)), controls(fuse_threshold=0.2, source="own prediction"), steps=4),
            "with fused self-attention",
        ),
        (lambda m, latent: edited(m, latent, controls(mask=torch.ones(2, 8, 8))), "2 frames and the clip 3"),
        (lambda m, latent: controls(cross_share=1.5), "cross share is 1.5"),
        (lambda m, latent: controls(blend_threshold=1.0), "blend threshold is 1.0"),
        (
            lambda m, latent: edited(
                m,
                latent,
                controls(prompt_edit(target=controlling.SOURCE, texts=(OWN_TEXT, PROMPT)), blend_threshold=0.3),
            ),
            "are the same words",
        ),
        (
            lambda m, latent: edited(m, latent, controls(prompt_edit(target="a red circle on blue"), noise_share=1.0)),
            "no word of the caption is replaced",
        ),
        (lambda m, latent: edited(model(), latent, controls()), "needs an inflated model"),
        (lambda m, latent: edited(m, latent, controls(prompt_edit(texts=(caption(1, 32), PROMPT)))), "is 32 wide"),
    ],
)
def test_refused(change, says):
    m = smooth()
    with pytest.raises(Exception, match=says):
        change(m, inverted(m))


def limited(text, **options):
    return [[text[0][0], options]]


PARTS = {
    "an area": ({"area": (4, 4, 0, 0), "strength": 1.0}, True),
    "a mask's bounds": ({"mask": torch.ones(1, 8, 8), "set_area_to_bounds": True, "mask_strength": 1.0}, True),
    "a timestep range": ({"start_percent": 0.0, "end_percent": 0.5}, False),
    "a strength of 0": ({"strength": 0.0}, False),
}


@pytest.mark.parametrize(("what", "options", "both"), [(what, *row) for what, row in PARTS.items()], ids=PARTS)
@pytest.mark.parametrize("name", ["positive", "negative"])
def test_conditioning_of_a_part_is_refused_before_any_pass(what, options, both, name, monkeypatch):
    m = smooth()
    latent = inverted(m)
    texts = {"positive": PROMPT, "negative": NOTHING}
    texts[name] = limited(texts[name], **options)
    if name == "positive" or both:
        monkeypatch.setattr(m.model, "apply_model", lambda *args, **kwargs: pytest.fail("a pass"))
        with pytest.raises(Exception, match=f"The {name} conditioning carries {what}: .* Control a mask"):
            sample(m, latent, **texts, cfg=3.0, control=controls(**SHARES))
    else:
        assert sample(m, latent, **texts, cfg=3.0, control=controls(**SHARES)).isfinite().all()


def noisy(m):
    """Inverted latents that spread as wide as noise: a model of random weights keeps the clip's own."""
    return inverted(m, {"samples": 5 * clip()["samples"]})


def bare(latent):
    """As it comes back from Load Latent."""
    return {"samples": latent["samples"]}


def test_own_prediction_needs_no_record():
    m = smooth()
    latent = noisy(m)
    chosen = controls(**SHARES, source="own prediction")
    assert torch.equal(edited(m, bare(latent), chosen, steps=4), edited(m, latent, chosen))


def test_inverted_under_another_text_is_said(caplog):
    m = smooth()
    edited(m, controlling.invert(m, None, PROMPT, steps=2)[0], controls(**SHARES))
    assert "inverted under another text" in caplog.text
    caplog.clear()
    for text in (OWN_TEXT, NOTHING):
        edited(m, controlling.invert(m, None, text, steps=2)[0], controls(**SHARES))
    assert "another text" not in caplog.text


def test_compiled_is_the_same():
    """Through TorchDynamo: what a step takes is found in a compiled UNet as well, at every step and for every pass."""
    m = inflate(model(scale=0.05, **SMALL))
    latent, chosen = inverted(m, steps=2), controls(cross_share=1.0, self_share=0.5, feature_share=0.5)
    expected, counters = edited(m, latent, chosen), torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    found = edited(compiled(m), latent, chosen)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert counters["stats"]["unique_graphs"] > 0
    assert not torch.allclose(found, edited(m, latent), atol=1e-2)
