"""Every family of base models that the method takes, from tuning to the edit, and those that it does not."""

import comfy.model_patcher
import comfy.supported_models as families
import pytest
import torch
from comfy.ldm.flux.model import FluxParams

from .controlling import NONE, controls, prompt_edit
from .mini import caption, clip, inflate, invert, model, pack, plain_sample, sample, tune, unet_config

EI2Error = pack("ei2_modules.errors").EI2Error
POOLED = 1280  # of CLIP-G
LINEAR = {"use_linear_in_transformer": True, "num_heads": -1, "num_head_channels": 16}
SD2 = {"family": families.SD20, **LINEAR}
SDXL = {
    "family": families.SDXL, "adm_in_channels": POOLED + 6 * 256, "num_classes": "sequential", **LINEAR,
    "transformer_depth": [0, 3], "transformer_depth_output": [0, 0, 3, 3], "transformer_depth_middle": 3,
}  # fmt: skip
FAMILIES = {
    "SD1": {},
    "SD1, v": {"prediction": "v"},
    "SD1 inpainting": {"in_channels": 9},
    "SD1 InstructPix2Pix": {"family": families.SD15_instructpix2pix, "in_channels": 8},
    "SD2": SD2,
    "SD2, v": {**SD2, "prediction": "v"},
    "SD2 inpainting": {**SD2, "in_channels": 9},
    "SDXL": SDXL,
    "SDXL, v": {**SDXL, "prediction": "v"},
    "SDXL inpainting": {**SDXL, "in_channels": 9},
    "SDXL without a middle block": {**SDXL, "family": families.KOALA_700M, "transformer_depth_middle": -2},
}


@pytest.fixture(params=FAMILIES.values(), ids=FAMILIES)
def m(request):
    return model(scale=0.05, **request.param)


def text(seed=1):
    """As the CLIP of any of them gives it; only SDXL reads the pooled part."""
    pooled = torch.randn(1, POOLED, generator=torch.Generator().manual_seed(seed))
    return [[caption(seed)[0][0], {"pooled_output": pooled}]]


def plain(m, frames):
    return plain_sample(m, frames=frames, text=text)


def close(a, b, tolerance=1e-5):
    return float((a - b).abs().max()) <= tolerance * float(b.abs().max())


def test_one_frame_is_the_plain_model(m):
    before = plain(m, 1)
    assert close(plain(inflate(m, stam_init="zero-query"), 1), before)
    assert torch.equal(plain(m, 1), before)


def test_frame_by_frame_is_the_plain_model(m):
    inflated = inflate(m, "custom", attention="per-frame", temporal_module="none")
    assert torch.equal(plain(inflated, 3), plain(m, 3))


def test_every_block_is_inflated_and_trained(m):
    inflated = inflate(m)
    blocks = inflated.get_attachment(pack("nodes.host.inflating.keys").OURS).spec.blocks
    assert len(blocks) == sum("attn1.to_q.weight" in key for key in m.model.state_dict())
    assert len({b.path for b in blocks}) == len(blocks)
    assert all(b.dim % b.heads == 0 for b in blocks)
    weights = tune(inflated, positive=text(), steps=3)[1]
    still = [path for path, delta in weights.tensors.queries.items() if not delta.abs().max() > 0]
    assert still == []


def test_from_the_clip_to_the_edit(m):
    """Tuned, inverted, brought back with iterations, and edited; tuned weights fit the model they came from."""
    before, latents = plain(m, 3), clip()
    tuned, weights, losses = tune(inflate(m), latents, text(), steps=3)
    assert all(torch.isfinite(torch.tensor(losses["loss"])))
    noise = invert(tuned, latents, text(), steps=10, iterations=5)[0]
    back = sample(tuned, noise, text(), text(3), cfg=1.0)
    assert close(back, latents["samples"], 0.02)
    assert not close(sample(tuned, noise, text(7), text(3), cfg=4.0), back, 0.05)
    assert torch.equal(plain(inflate(m, weights=weights), 3), plain(tuned, 3))
    assert torch.equal(plain(m, 3), before)


def test_a_long_clip_and_a_mask(m):
    inflated, latents = inflate(m), clip(20)
    noise = invert(inflated, latents, text(), steps=2)[0]
    mask = torch.zeros(20, 64, 64)
    mask[:, :32] = 1
    edited = sample(inflated, {**noise, "noise_mask": mask}, text(7), text(3), cfg=3.0)
    assert close(edited[:, :, 4:], latents["samples"][:, :, 4:])
    assert torch.isfinite(edited).all()


def test_an_edit_under_control(m):
    """Taking nothing is the plain edit; taking a lot leads nearer to the clip; the texts keep what a family needs."""
    inflated, latents = inflate(m), clip()
    noise, nothing = invert(inflated, latents, text(1), steps=4)[0], text(3)
    made = prompt_edit(texts=(text(1), text(5)))

    def off(chosen):
        found = sample(inflated, noise, text(5), nothing, 3.0, control=chosen)
        return (found - latents["samples"]).abs().mean(), found

    plain_off, edited = off(None)
    assert torch.equal(off(controls(made, **NONE))[1], edited)
    assert off(controls(made, cross_share=1.0, self_share=1.0, feature_share=1.0))[0] < 0.97 * plain_off


def inpainting(latents):
    """What the stock node InpaintModelConditioning adds: the picture to fill and the mask, for every frame."""
    picture, mask = torch.zeros_like(latents), torch.ones(len(latents), 64, 64)
    picture[..., 4:], mask[..., 32:] = latents[..., 4:], 0
    embedding, options = text()[0]
    return [[embedding, {**options, "concat_latent_image": picture, "concat_mask": mask}]]


@pytest.mark.parametrize("name", [name for name in FAMILIES if name.endswith("inpainting")])
def test_inpainting_models_see_the_picture_to_fill(name):
    """In tuning, inversion and sampling, each frame its own; without the node they see an empty one."""
    m, latents = model(scale=0.05, **FAMILIES[name]), clip()
    filled, empty = inpainting(latents["samples"]), text()
    deltas = [tune(inflate(m), latents, words)[1].tensors.queries for words in (filled, empty)]
    assert any(not torch.equal(deltas[0][path], deltas[1][path]) for path in deltas[0])
    inflated = inflate(m)
    noises = [invert(inflated, latents, words)[0] for words in (filled, empty)]
    assert not close(noises[0]["samples"], noises[1]["samples"], 1e-3)
    edits = [sample(inflated, noises[0], words, text(3), cfg=3.0) for words in (filled, empty)]
    assert not close(*edits, 1e-3)


NEWER_FLUX = {"txt_ids_dims": []} if "txt_ids_dims" in FluxParams.__annotations__ else {}
OTHERS = {
    "SD3": (families.SD3, {
        "in_channels": 16, "patch_size": 2, "depth": 1, "input_size": None, "adm_in_channels": 8, "num_patches": 16,
        "pos_embed_max_size": None, "pos_embed_scaling_factor": None,
        "context_embedder_config": {"target": "torch.nn.Linear", "params": {"in_features": 8, "out_features": 64}},
    }),
    "Flux": (families.Flux, {
        "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 8, "context_in_dim": 8, "hidden_size": 32,
        "mlp_ratio": 1.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 6, 6], "theta": 10000,
        "qkv_bias": True, "guidance_embed": False, **NEWER_FLUX,
    }),
    "WAN21_T2V": (families.WAN21_T2V, {
        "model_type": "t2v", "dim": 48, "ffn_dim": 32, "num_heads": 2, "num_layers": 1, "in_dim": 16, "out_dim": 16,
        "patch_size": (1, 2, 2), "freq_dim": 16, "window_size": (-1, -1), "qk_norm": True, "cross_attn_norm": True,
        "eps": 1e-6, "text_dim": 8, "text_len": 8,
    }),
    "SVD_img2vid": (families.SVD_img2vid, {
        **unet_config(**LINEAR), "in_channels": 8, "adm_in_channels": 768, "num_classes": "sequential",
        "use_temporal_attention": True, "use_temporal_resblock": True, "extra_ff_mix_layer": True,
        "use_spatial_context": True, "merge_strategy": "learned_with_images", "merge_factor": 0.0,
        "video_kernel_size": [3, 1, 1],
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_architectures_are_refused_by_name(name):
    """The host's own models, tiny."""
    family, config = OTHERS[name]
    config = family(config)
    config.set_inference_dtype(torch.float32, None)
    cpu = torch.device("cpu")
    m = comfy.model_patcher.ModelPatcher(config.get_model({}, device="cpu"), load_device=cpu, offload_device=cpu)
    with pytest.raises(EI2Error, match=f"This is a {name} model .*Stable Diffusion 1.x, 2.x and XL"):
        inflate(m)


def test_weights_of_one_family_do_not_fit_another():
    weights = tune(inflate(model(scale=0.05)), positive=text())[1]
    for changes in (SD2, SDXL):
        with pytest.raises(EI2Error, match="tuned on a SD15 model"):
            inflate(model(scale=0.05, **changes), weights=weights)
