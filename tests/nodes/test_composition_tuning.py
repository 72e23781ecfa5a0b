"""What other nodes of ComfyUI do beside One-Shot Tune: a column of the table in docs/compatibility.md.

A prediction type: test_other_nodes.py. ControlNets: test_controlnet.py. Context Windows: test_windows.py.
"""

import comfy.hooks
import comfy.model_management as mm
import pytest
import torch
from comfy_extras.nodes_hooks import ConditioningSetProperties

from ..same import same
from .mini import caption, clip, inflate, model, pack, plain_sample, tune
from .other_nodes import NODES, compiled, lora, run_node, with_lora

EI2Error = pack("ei2_modules.errors").EI2Error
SIZE = 16  # of the latents: below it HyperTile has nothing to cut
TUNED_UPON = ["Load LoRA", "IP-Adapter", "attention patches", "FreeU", "FreeU_V2", "HyperTile", "Token Merging",
              "Kohya Deep Shrink", "ModelMergeSimple"]  # fmt: skip
NO_MATTER = {name: NODES[name] for name in ("Perturbed-Attention Guidance", "RescaleCFG")}
NO_MATTER["TorchCompileModel"] = compiled


def tuned(m, **options):
    """Tensors of a tuning; Token Merging and HyperTile draw from the global random numbers."""
    torch.manual_seed(0)
    tensors = tune(m, clip(3, SIZE, SIZE), **options)[1].tensors
    return tensors.queries | tensors.temporal


@pytest.mark.parametrize("name", TUNED_UPON)
def test_what_is_tuned_upon(name):
    """In both orders, and with either checkpointing, to the same weights; they are not those without the node."""
    m, node = model(), NODES[name]
    before = plain_sample(m)
    kept = tuned(node(inflate(m)), gradient_checkpointing="off")
    assert same(tuned(inflate(node(m)), gradient_checkpointing="on"), kept)
    assert not same(tuned(inflate(m)), kept)
    assert torch.equal(plain_sample(m), before)


@pytest.mark.parametrize("node", NO_MATTER.values(), ids=NO_MATTER)
def test_what_does_not_matter(node):
    m = model()
    kept = tuned(inflate(m))
    assert same(tuned(node(inflate(m))), kept)
    assert same(tuned(inflate(node(m))), kept)


def test_a_compiled_model_is_tuned_uncompiled(monkeypatch):
    """Or every change of ours would compile it anew."""
    monkeypatch.setattr(torch, "compile", lambda model, **options: pytest.fail)
    tune(compiled(inflate(model())))


def test_the_gradients_through_freeu_are_right(monkeypatch):
    """Its second version changes what it keeps for the backward pass: PyTorch's own slow remedy gives equal weights.

    But for rounding: the mean difference was 4e-9 of changes of 1e-3.
    """
    m = NODES["FreeU_V2"](inflate(model()))
    kept = tuned(m)
    monkeypatch.setattr(pack("nodes.host.tuning.model"), "BETWEEN_BLOCKS", ())
    with pytest.raises(EI2Error, match=r"changes in place.*behind One-Shot Tune"):
        tuned(m)
    with torch.inference_mode(False), torch.no_grad(), torch.autograd.graph.allow_mutation_on_saved_tensors():
        slow = tuned(NODES["FreeU_V2"](inflate(model())), gradient_checkpointing="off")
    differences = torch.cat([(tensor - slow[name]).flatten().abs() for name, tensor in kept.items()])
    assert differences.mean() < 1e-7
    assert differences.max() < 1e-4


@pytest.mark.parametrize("before", [True, False], ids=["before inflating", "after"])
def test_self_attention_guidance_is_refused(before):
    m, node = model(), NODES["Self-Attention Guidance"]
    with pytest.raises(EI2Error, match=r"self-attention of 1 blocks \(first middle 0\)"):
        tune(inflate(node(m)) if before else node(inflate(m)))


def test_scheduled_loras_are_refused():
    """The host would add them to the frozen queries, whose place the trained ones take."""
    hooks = comfy.hooks.create_hook_lora(lora=lora(), strength_model=1.0, strength_clip=0.0)
    text = run_node(ConditioningSetProperties, caption(), 1.0, "default", None, hooks)
    with pytest.raises(EI2Error, match="carries a hook"):
        tune(inflate(model()), positive=text)


@pytest.fixture
def no_vram(monkeypatch):
    """A function: from then on the host keeps all weights off the device, as with --novram on a GPU."""

    def begin():
        mm.unload_all_models()
        monkeypatch.setattr(mm, "is_device_cpu", lambda device: False)
        monkeypatch.setattr(mm, "vram_state", mm.VRAMState.NO_VRAM)

    yield begin
    mm.unload_all_models()


def test_offloading_does_not_lose_what_is_tuned_upon(no_vram):
    kept = tuned(inflate(with_lora(model())))
    no_vram()
    assert same(tuned(inflate(with_lora(model()))), kept)


def test_a_tuned_model_can_be_offloaded_at_once(no_vram):
    """Nothing that tuning leaves on the modules makes the host pass over the tuned queries."""
    m = model()
    expected = plain_sample(tune(inflate(m))[0])
    made = tune(inflate(m))[0]
    no_vram()
    assert torch.equal(plain_sample(made), expected)
    assert m.model.model_lowvram
