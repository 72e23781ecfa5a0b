"""What the tests of this folder do with the miniature model: nodes of ours and of the host, and control nets."""

import torch

from benchmarks.common.miniature import caption, clip, unet_config
from benchmarks.common.miniature import model as model
from tools.server.in_process import pack


def run(node: str, **inputs):
    """Execute a node as the server does and give its outputs."""
    module, name = node.split(".")
    return getattr(pack(f"nodes.{module}"), name).execute(**inputs).args


def inflate(m, mode="EI²", **options):
    defaults = {"coarse_ratio": 2, "temporal_module": "STAM", "attention": "FFAM", "stam_init": "random", "seed": 33}
    return run("inflate_unet.InflateUNet", model=m, mode=mode, **(defaults | options))[0]


def tune(m, latents=None, positive=None, **options):
    defaults = {
        "steps": 2, "learning_rate": 1e-3, "seed": 33, "precision": "auto", "gradient_checkpointing": "auto",
        "resume": "new run", "autosave_every": 0,
    }  # fmt: skip
    return run(
        "one_shot_tune.OneShotTune",
        model=m,
        latents=latents or clip(),
        positive=positive or caption(),
        **(defaults | options),
    )


def invert(m, latents=None, positive=None, steps=5, iterations=0, vae=None):
    return run(
        "invert_video.InvertVideo",
        model=m,
        latents=latents or clip(),
        positive=positive or caption(),
        steps=steps,
        fixed_point_iterations=iterations,
        vae=vae,
    )[:2]


def sample(m, latent, positive=None, negative=None, cfg=1.0, seed=0, eta=0.0, steps=0, **options):
    return run(
        "sampler.EI2Sampler",
        model=m,
        positive=positive or caption(),
        negative=negative or caption(3),
        latent=latent,
        cfg=cfg,
        seed=seed,
        eta=eta,
        steps=steps,
        **options,
    )[0]["samples"]


def plain_sample(m, seed=5, frames=3, steps=3, size=8, text=caption):
    """The host's own KSampler on a model: what must never change."""
    import nodes

    latent = clip(frames, size, size)
    return nodes.common_ksampler(m, seed, steps, 3.0, "euler", "normal", text(), text(3), latent)[0]["samples"]


def custom_advanced(m, latent, sampler, sigmas, cfg=3.0, guider=None):
    """The LATENT of the stock SamplerCustomAdvanced with Disable Noise. guider: another than the host's own."""
    import comfy.samplers
    import comfy_extras.nodes_custom_sampler as custom

    if guider is None:
        guider = comfy.samplers.CFGGuider(m)
        guider.set_conds(caption(), caption(3))
        guider.set_cfg(cfg)
    out = custom.SamplerCustomAdvanced.execute(custom.DisableNoise.execute().args[0], guider, sampler, sigmas, latent)
    return out.args[0]


def controlnet(seed=0):
    """CONTROL_NET of random weights, shaped for `model`. Its last convolutions are not zero: it does something."""
    import comfy.cldm.cldm
    import comfy.controlnet
    import comfy.ops

    config = {k: v for k, v in unet_config().items() if k not in ("out_channels", "transformer_depth_output")}
    config["transformer_depth"] = [1, 1]
    net = comfy.cldm.cldm.ControlNet(hint_channels=3, operations=comfy.ops.disable_weight_init, **config)
    generator = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.copy_(torch.randn(p.shape, generator=generator) * (p[0].numel() ** -0.5 if p.ndim > 1 else 0.1))
    return comfy.controlnet.ControlNet(net, load_device=comfy.model_management.get_torch_device())


def control_lora(seed=0):
    """CONTROL_NET as a difference to `model`: it brings what a UNet has not, and changes one weight."""
    import comfy.controlnet

    weights = controlnet(seed).control_model.state_dict()
    own = {k: v for k, v in weights.items() if k.startswith(("input_hint_block", "zero_convs", "middle_block_out"))}
    generator = torch.Generator().manual_seed(seed)
    query = "input_blocks.1.1.transformer_blocks.0.attn1.to_q"
    shapes = {f"{query}.up": (32, 4), f"{query}.down": (4, 32)}
    own |= {name: 0.2 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return comfy.controlnet.ControlLora(own)


class _Adapter(torch.nn.Module):
    """Features for the second block of `model`, the least that the host takes for a T2I-Adapter."""

    unshuffle_amount = 8

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 32, 8, 8)

    def forward(self, x):
        return {"input": [self.conv(x), None]}  # taken from the end


def t2i_adapter(seed=0):
    """CONTROL_NET."""
    import comfy.controlnet

    net, generator = _Adapter().requires_grad_(False), torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.copy_(0.1 * torch.randn(p.shape, generator=generator))
    return comfy.controlnet.T2IAdapter(net, 3, 8, "nearest-exact")


def hints(frames, size=64):
    """IMAGE: a picture for each of these numbers."""
    return torch.stack([torch.rand(size, size, 3, generator=torch.Generator().manual_seed(i)) for i in frames])


def controlled(*nets, positive=None, negative=None, strength=1.0, end_percent=1.0):
    """(positive, negative) under pairs of a ControlNet and its hints, by the stock node."""
    import nodes

    both = positive or caption(), negative or caption(3)
    for net, images in nets:
        both = nodes.ControlNetApplyAdvanced().apply_controlnet(*both, net, images, strength, 0.0, end_percent)
    return both
