"""What other nodes of ComfyUI do beside ours when sampling: the table "Beside other nodes" of the README, row by row.

ControlNets: test_controlnet.py. Context Windows: test_windows.py. LoRA layer by layer: test_inflate.py. Masks on the
clip: test_masked_edit.py. While tuning: test_composition_tuning.py.
"""

import copy
import logging
from dataclasses import replace

import comfy.hooks
import comfy.model_management as mm
import pytest
import torch
from comfy_extras.nodes_hooks import ConditioningSetProperties, CreateHookKeyframe
from comfy_extras.nodes_mask import SolidMask
from comfy_extras.nodes_model_merging import ModelMergeSimple
from mini import caption, inflate, invert, model, pack, plain_sample, sample, tune
from other_nodes import NODES, compiled, lora, lora_deltas, run_node, with_lora

import nodes

SIZE = 16  # of the latents: below it HyperTile has nothing to cut
ORDERS = {
    "before inflating": lambda node, m, **options: inflate(node(m), **options),
    "after": lambda node, m, **options: node(inflate(m, **options)),
}
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}


def sampled(m):
    return plain_sample(m, size=SIZE)


def close(a, b):
    torch.testing.assert_close(a, b, rtol=0, atol=1e-3)


def differ(a, b):
    return bool((a - b).abs().max() > 1e-2)


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_both_orders_are_the_same(node):
    """And the node does what it does, beside what we do; and the plain model stays as it was."""
    m = model()
    before = sampled(m)
    expected = sampled(node(inflate(m)))
    assert torch.equal(sampled(inflate(node(m))), expected)
    assert expected.isfinite().all()
    assert all(differ(sampled(other), expected) for other in (node(m), inflate(m)))
    assert torch.equal(sampled(m), before)


def test_compiled_is_the_same():
    """Through TorchDynamo, which hands graphs on to the backend."""
    m, counters = model(**SMALL), torch._dynamo.utils.counters
    before, expected = plain_sample(m, steps=1), plain_sample(inflate(m), steps=1)
    torch._dynamo.reset()
    counters.clear()
    assert torch.equal(plain_sample(compiled(inflate(m)), steps=1), expected)
    assert counters["stats"]["unique_graphs"] > 0
    assert torch.equal(plain_sample(m, steps=1), before)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_compiled_model_is_used_in_both_orders(order, monkeypatch):
    """Compiling takes long: here it is only seen that the compiled UNet runs, and finds what we put into it."""
    m, runs = model(), []
    expected = plain_sample(inflate(m))

    def as_it_is(model, **options):
        made = copy.copy(model)
        made.forward = lambda *args, **kwargs: runs.append(model) or model(*args, **kwargs)
        return made

    monkeypatch.setattr(torch, "compile", as_it_is)
    assert torch.equal(plain_sample(order(compiled, m)), expected)
    assert set(runs) == {m.model.diffusion_model}


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_a_lora_and_tuned_queries_add_up(order):
    """On the same to_q: what comes out is what adding both to the checkpoint by hand gives."""
    m, baked = model(), model()
    before, weights = plain_sample(m), tune(inflate(m))[1]
    tuned = {f"diffusion_model.{path}.weight": delta for path, delta in weights.tensors.queries.items()}
    for deltas in (lora_deltas(), tuned):
        for key, delta in deltas.items():
            baked.get_model_object(key).add_(delta)
    unet = pack("nodes.host.inflating.unet")
    header = replace(weights.header, fingerprint=unet.base_fingerprint(baked, unet.describe(baked)))
    no_queries = {path: torch.zeros_like(delta) for path, delta in weights.tensors.queries.items()}
    by_hand = replace(weights, header=header, tensors=replace(weights.tensors, queries=no_queries))
    expected = plain_sample(inflate(baked, weights=by_hand))
    close(plain_sample(order(with_lora, m, weights=weights)), expected)
    assert differ(plain_sample(inflate(m, weights=weights)), expected)
    assert differ(plain_sample(inflate(with_lora(m))), expected)
    assert torch.equal(plain_sample(m), before)


@pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS)
def test_self_attention_guidance_takes_ffam_from_the_middle_and_it_is_said(order, caplog):
    pack("nodes.host.inflating.foreign")._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        sampled(order(NODES["Self-Attention Guidance"], model()))
        sampled(order(NODES["Self-Attention Guidance"], model()))
    assert caplog.text.count("replaces the self-attention of 1 blocks (first middle 0); there is no FFAM there") == 1


def test_hypertile_takes_ffam_from_its_blocks_and_it_is_said(caplog):
    pack("nodes.host.inflating.attention_hooks")._warn_tiled.cache_clear()
    with caplog.at_level(logging.WARNING):
        sampled(NODES["HyperTile"](inflate(model())))
    assert caplog.text.count("cuts the self-attention into tiles; frames attend only to themselves there") == 1


def test_merged_with_an_inflated_model():
    """Model 1 of a merge decides: an inflated one stays inflated; of an inflated model 2 only the weights come."""
    m, other = model(), model(seed=9)
    before = plain_sample(m)
    second = run_node(ModelMergeSimple, other, inflate(m), 0.5)
    assert torch.equal(plain_sample(second), plain_sample(run_node(ModelMergeSimple, other, m, 0.5)))
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match="this one is plain"):
        invert(second)
    assert torch.equal(plain_sample(m), before)


def test_a_merge_behind_tuning_dilutes_what_was_learnt():
    m, other = model(), model(seed=9)
    tuned, weights, _ = tune(inflate(m))
    path, delta = next(iter(weights.tensors.queries.items()))
    key = f"diffusion_model.{path}.weight"
    plain, theirs = m.get_model_object(key).clone(), other.get_model_object(key)
    merged = run_node(ModelMergeSimple, tuned, other, 0.5)
    mm.load_models_gpu([merged])
    torch.testing.assert_close(merged.get_model_object(key), (plain + delta + theirs) / 2, rtol=0, atol=1e-6)


def combined(node, *args):
    """Two texts at once, the second of them limited by a node."""
    return caption() + run_node(node, caption(4), *args)


CONDITIONING = {
    "Conditioning (Combine)": lambda: caption() + caption(4),
    "Conditioning (Set Area)": lambda: combined(nodes.ConditioningSetArea, 32, 64, 0, 0, 1.0),
    "Conditioning (Set Mask)": lambda: combined(
        nodes.ConditioningSetMask, run_node(SolidMask, 0.7, 64, 64), "default", 1.0
    ),
    "ConditioningSetTimestepRange": lambda: combined(nodes.ConditioningSetTimestepRange, 0.0, 0.5),
    "scheduled LoRA": lambda: scheduled(caption()),
}


def scheduled(text, *keyframes):
    """Under a LoRA of its own, by hooks; keyframes: (strength, from which part of the sampling on)."""
    hooks = comfy.hooks.create_hook_lora(lora=lora(), strength_model=1.0, strength_clip=0.0)
    if keyframes:
        group = None
        for strength, start in keyframes:
            group = run_node(CreateHookKeyframe, strength, start, group)
        hooks.set_keyframes_on_hooks(group)
    return run_node(ConditioningSetProperties, text, 1.0, "default", None, hooks)


@pytest.mark.parametrize("text", CONDITIONING.values(), ids=CONDITIONING)
def test_conditioning(text, monkeypatch):
    """Whether the host runs texts in one batch or one by one, each sees its frames: the same comes out."""
    m = model()
    before, inflated = plain_sample(m), inflate(m)
    noise = invert(inflated)[0]
    together = sample(inflated, noise, positive=text(), cfg=2.0)
    assert differ(together, sample(inflated, noise, cfg=2.0))
    monkeypatch.setattr(type(m.model), "memory_required", lambda self, *a, **k: 1e18)
    close(sample(inflated, noise, positive=text(), cfg=2.0), together)
    monkeypatch.undo()
    assert torch.equal(plain_sample(m), before)


def test_a_scheduled_lora_is_the_lora_while_it_lasts():
    """Also on tuned queries; afterwards the model is as it was."""
    m = model()
    tuned, weights, _ = tune(inflate(m))
    before, noise = plain_sample(tuned), invert(tuned)[0]
    with_it, without = sample(inflate(with_lora(m), weights=weights), noise), sample(tuned, noise)
    close(sample(tuned, noise, positive=scheduled(caption())), with_it)
    half = sample(tuned, noise, positive=scheduled(caption(), (1.0, 0.0), (0.0, 0.5)))
    assert all(differ(half, other) for other in (with_it, without))
    assert torch.equal(plain_sample(tuned), before)


OFFLOADED = {"--novram": lambda patcher: 0.1, "--lowvram": lambda patcher: patcher.model_size() // 2}


@pytest.mark.parametrize("budget", OFFLOADED.values(), ids=OFFLOADED)
def test_offloaded_is_the_same(budget, monkeypatch):
    """The host keeps as many bytes of the UNet and of the temporal modules on the device as it decides: few or none."""
    m = model()
    before, made = plain_sample(m), with_lora(tune(inflate(m))[0])
    expected = plain_sample(made)
    (bank,) = made.get_additional_models()
    mm.unload_all_models()
    load = mm.LoadedModel.model_load
    monkeypatch.setattr(mm.LoadedModel, "model_load", lambda self, *a, **k: load(self, budget(self.model), **k))
    close(plain_sample(made), expected)
    for patcher in (made, bank):
        assert patcher.model.model_lowvram
        assert patcher.loaded_size() <= patcher.model_size() // 2
    mm.unload_all_models()
    monkeypatch.undo()
    assert torch.equal(plain_sample(m), before)
