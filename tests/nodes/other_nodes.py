"""Nodes of ComfyUI that users put beside ours, as functions MODEL -> MODEL, for the tables of test_composition*.py."""

import comfy.sd
import torch
from comfy_api.torch_helpers import set_torch_compile_wrapper
from comfy_extras.nodes_freelunch import FreeU, FreeU_V2
from comfy_extras.nodes_hypertile import HyperTile
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete, RescaleCFG
from comfy_extras.nodes_model_downscale import PatchModelAddDownscale
from comfy_extras.nodes_model_merging import ModelMergeSimple
from comfy_extras.nodes_pag import PerturbedAttentionGuidance
from comfy_extras.nodes_sag import SelfAttentionGuidance
from comfy_extras.nodes_tomesd import TomePatchModel

from .mini import model

LAYERS = ("attn1_to_q", "attn1_to_k", "attn2_to_q", "attn2_to_v", "ff_net_2")
BLOCK = "input_blocks_1_1_transformer_blocks_0"


def run_node(node, *args):
    """Execute a stock node: which of the two kinds it is, and what it gives, differs between hosts."""
    given = node.execute(*args) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(*args)
    return getattr(given, "args", given)[0]


def lora(seed=8) -> dict:
    """A LoRA file's tensors, of rank 4, for five layers of one block."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"ff_net_2": (32, 128), "attn2_to_v": (32, 64)}
    found = {}
    for layer in LAYERS:
        out, into = widths.get(layer, (32, 32))
        found[f"lora_unet_{BLOCK}_{layer}.lora_up.weight"] = torch.randn(out, 4, generator=generator) / 4
        found[f"lora_unet_{BLOCK}_{layer}.lora_down.weight"] = torch.randn(4, into, generator=generator) / 8
    return found


def lora_deltas(seed=8) -> dict:
    """Key of a weight of the model -> what this LoRA adds to it."""
    tensors, block = lora(seed), "diffusion_model.input_blocks.1.1.transformer_blocks.0"
    dotted = {"attn1_to_q": "attn1.to_q", "attn1_to_k": "attn1.to_k", "attn2_to_q": "attn2.to_q",
              "attn2_to_v": "attn2.to_v", "ff_net_2": "ff.net.2"}  # fmt: skip
    stem = f"lora_unet_{BLOCK}_"
    return {
        f"{block}.{dotted[layer]}.weight": tensors[f"{stem}{layer}.lora_up.weight"]
        @ tensors[f"{stem}{layer}.lora_down.weight"]
        for layer in LAYERS
    }


def with_lora(m, seed=8):
    """What Load LoRA does with the file's tensors."""
    return comfy.sd.load_lora_for_models(m, None, lora(seed), 1.0, 0)[0]


def ip_adapter(m):
    """The way of an IP-Adapter: its picture's tokens are attended to beside the text, and the result is added."""
    m = m.clone()

    def attend(q, k, v, extra_options):
        scores = torch.softmax(q @ k.mean(1, keepdim=True).expand_as(k).mT / q.shape[-1] ** 0.5, dim=-1)
        return scores @ v + 0.5 * v[:, :1].expand_as(q)

    for place in (("input", 1), ("middle", 0)):
        m.set_model_attn2_replace(attend, *place)
    return m


def attention_patches(m):
    """One patch of every other kind that an attention block takes."""
    m = m.clone()
    m.set_model_attn1_patch(lambda q, k, v, extra_options: (q, 1.1 * k, v))
    m.set_model_attn2_patch(lambda q, k, v, extra_options: (q, k, 0.9 * v))
    m.set_model_attn1_output_patch(lambda n, extra_options: 0.9 * n)
    m.set_model_attn2_output_patch(lambda n, extra_options: 1.1 * n)
    return m


def compiled(m):
    """The node TorchCompileModel, with a backend that needs no compiler."""
    m = m.clone()
    set_torch_compile_wrapper(m, backend="eager")
    return m


NODES = {
    "Load LoRA": with_lora,
    "IP-Adapter": ip_adapter,
    "attention patches": attention_patches,
    "FreeU": lambda m: run_node(FreeU, m, 1.1, 1.2, 0.9, 0.2),
    "FreeU_V2": lambda m: run_node(FreeU_V2, m, 1.3, 1.4, 0.9, 0.2),
    "HyperTile": lambda m: run_node(HyperTile, m, 32, 2, 0, False),
    "Perturbed-Attention Guidance": lambda m: run_node(PerturbedAttentionGuidance, m, 3.0),
    "Self-Attention Guidance": lambda m: run_node(SelfAttentionGuidance, m, 0.5, 2.0),
    "Token Merging": lambda m: run_node(TomePatchModel, m, 0.3),
    "Kohya Deep Shrink": lambda m: run_node(PatchModelAddDownscale, m, 1, 2.0, 0.0, 0.9, True, "bicubic", "bicubic"),
    "ModelSamplingDiscrete": lambda m: run_node(ModelSamplingDiscrete, m, "v_prediction", False),
    "RescaleCFG": lambda m: run_node(RescaleCFG, m, 0.7),
    "ModelMergeSimple": lambda m: run_node(ModelMergeSimple, m, model(seed=9), 0.5),
}
