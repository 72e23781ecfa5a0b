"""Builds the miniature model out of the host's own parts: a MODEL, a CLIP and a VAE like any checkpoint's."""

from types import SimpleNamespace

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import nn

from ...ei2_modules.demo import autoencoder, text_encoder, vocabulary
from ...ei2_modules.demo import weights as demo_weights

UNET = {
    "image_size": 16,
    "in_channels": autoencoder.CHANNELS,
    "out_channels": autoencoder.CHANNELS,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "use_spatial_transformer": True,
    "context_dim": text_encoder.WIDTH,
    "legacy": False,
    "use_linear_in_transformer": False,
    "adm_in_channels": None,
    "num_heads": 4,
}


class TrainableLayers:
    """The layers of a UNet that is trained from nothing: the host's own leave their weights as they find them."""

    Linear, Conv2d, GroupNorm, LayerNorm = nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm

    @staticmethod
    def conv_nd(dims, *args, **kwargs):
        assert dims == 2
        return nn.Conv2d(*args, **kwargs)


def new_unet() -> UNetModel:
    """The miniature UNet with fresh weights, to be trained."""
    unet = UNetModel(**UNET, operations=TrainableLayers)
    closing = [m.out_layers[-1] for m in unet.modules() if hasattr(m, "out_layers")]
    closing += [m.proj_out for m in unet.modules() if hasattr(m, "proj_out")]
    for layer in [*closing, unet.out[-1]]:  # every block starts as if it were not there
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    return unet


def load() -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP, comfy.sd.VAE]:
    """The shipped model. Raises EI2Error if its file cannot be read."""
    weights = demo_weights.load()
    return _model(weights), _clip(weights), _vae(weights)


class _Latents(comfy.latent_formats.LatentFormat):
    latent_channels = autoencoder.CHANNELS
    spacial_downscale_ratio = autoencoder.FACTOR  # read by hosts newer than 0.3.75

    def __init__(self, preview: dict):
        self.latent_rgb_factors = preview["factors"].tolist()
        self.latent_rgb_factors_bias = preview["bias"].tolist()


class EI2Demo(comfy.supported_models_base.BASE):
    """The name of this class is the family that tuned weights remember."""

    unet_config = UNET
    unet_extra_config = {}  # the host's default would change the number of attention heads
    memory_usage_factor = 0.5


def _model(weights) -> comfy.model_patcher.ModelPatcher:
    config = EI2Demo(UNET)
    config.latent_format = _Latents(weights.preview)
    config.set_inference_dtype(torch.float32, None)
    base = comfy.model_base.BaseModel(config, device="cpu")
    base.diffusion_model.load_state_dict(weights.unet)
    load_device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(base, load_device, comfy.model_management.unet_offload_device())


class _Tokenizer:
    """Captions to weighted tokens, with the host's brackets: (red:1.3)."""

    ei2_words = vocabulary.WORDS  # by which attention control reads the tokens

    def __init__(self, **_):
        pass

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, **_) -> dict:
        parts = comfy.sd1_clip.token_weights(comfy.sd1_clip.escape_important(text), 1.0)
        parts = [(comfy.sd1_clip.unescape_important(part), weight) for part, weight in parts]
        vocabulary.tokenize(" ".join(part for part, _ in parts))  # the caption as a whole may be too long
        tokens = [(token, weight) for part, weight in parts for token in vocabulary.tokenize(part)[1:]]
        tokens = [(vocabulary.START, 1.0), *tokens]
        tokens += [(vocabulary.PAD, 1.0)] * (vocabulary.LENGTH - len(tokens))
        return {"words": [[(*token, 0) for token in tokens] if return_word_ids else tokens]}

    def untokenize(self, pairs) -> list:
        return [(pair, vocabulary.WORDS[pair[0]]) for pair in pairs]

    def state_dict(self) -> dict:
        return {}


class _TextModel(nn.Module, comfy.sd1_clip.ClipTokenWeightEncoder):
    """The text encoder as the host's CLIP object wants it."""

    def __init__(self, **_):
        super().__init__()
        self.encoder = text_encoder.TextEncoder().eval()
        self.dtypes = {torch.float32}
        self.special_tokens: dict = {}  # the host asks for it

    def encode_token_weights(self, tokens: dict):
        return super().encode_token_weights(tokens["words"])

    def gen_empty_tokens(self, _, length: int) -> list[int]:
        return [vocabulary.START, *[vocabulary.PAD] * (length - 1)]

    @torch.no_grad()
    def encode(self, tokens: list[list[int]]):
        context = self.encoder(torch.tensor(tokens))
        return context, context.mean(dim=1)

    def set_clip_options(self, options: dict) -> None: ...  # it has no layers to leave out

    def reset_clip_options(self) -> None: ...

    def load_sd(self, state_dict: dict):
        return self.encoder.load_state_dict(state_dict)


def _clip(weights) -> comfy.sd.CLIP:
    target = SimpleNamespace(params={}, clip=_TextModel, tokenizer=_Tokenizer)
    cpu = torch.device("cpu")  # 70,000 weights: nothing to gain elsewhere
    places = dict.fromkeys(("load_device", "offload_device", "initial_device"), cpu)
    clip = comfy.sd.CLIP(target, model_options={**places, "dtype": torch.float32})
    clip.load_sd(weights.text_encoder)
    return clip


def _vae(weights) -> comfy.sd.VAE:
    """The host makes a VAE only around a network it knows: it is given a small one, which is then exchanged."""
    parts = {"ch": 32, "ch_mult": [1], "num_res_blocks": 1, "z_channels": 4, "in_channels": 3, "out_ch": 3}
    params = {
        "embed_dim": 4,
        "ddconfig": {**parts, "double_z": True, "resolution": 8, "attn_resolutions": [], "dropout": 0.0},
    }
    known = AutoencoderKL(**params)
    vae = comfy.sd.VAE(known.state_dict(), config={"params": params}, dtype=torch.float32)
    network = autoencoder.Autoencoder()
    network.load_state_dict(weights.autoencoder)
    vae.first_stage_model = network.eval()
    vae.patcher = comfy.model_patcher.ModelPatcher(network, vae.device, comfy.model_management.vae_offload_device())
    vae.downscale_ratio = vae.upscale_ratio = autoencoder.FACTOR
    vae.latent_channels, vae.size = autoencoder.CHANNELS, None
    # Asked for a pixel of the picture or of the latent, and more than these few layers ever hold: 16 kB.
    vae.memory_used_encode = vae.memory_used_decode = lambda shape, dtype: 1000 * shape[-1] * shape[-2] * 16
    return vae
