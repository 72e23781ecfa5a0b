"""No function, class or method of ComfyUI differs after importing the pack and running every node."""

import pytest
import torch

from tools.server.in_process import pack

from .. import host_as_it_was, nla_checkpoint
from ..filmed import film, greys
from .controlling import controls, edited, fitted, prompt_edit
from .mini import caption, clip, controlnet, inflate, invert, model, run, sample, tune


@pytest.fixture
def ways(folders):
    """Node id -> what runs it."""
    tuned, weights, _ = tune(inflate(model()))
    noise = invert(tuned)[0]
    red, blue = {"shape": "circle", "colour": "red"}, {"background": "blue", "motion": "slide", "frames": 2}
    frames = torch.rand(2, 16, 16, 3)
    path = pack("nodes.host.files.weights_folder").save(weights, "clip", "output/ei2")
    video = {"file": film(folders / "output" / "a.mp4", greys(4)).name + " [output]", "fit": "keep aspect"}
    numbers = {"start": 0.0, "duration": 0.0, "frames": 2, "fps": 0.0, "long_side": 64}
    drawer, text_encoder, decoder = run("demo_model.LoadDemoModel")[:3]
    drawer, empty = inflate(drawer), text_encoder.encode_from_tokens_scheduled(text_encoder.tokenize(""))
    inverted = invert(drawer, clip(2, channels=8), empty)[0]
    drawn = {"model": drawer, "clip": text_encoder, "latent": inverted}
    of_flat = {"atlas": flat(), "images": frames[:, :8, :8]}
    both = pack("ei2_modules.atlas.key_frames").KeyFrames(0, (0, 1))
    painter = {"model": model(), "positive": caption(), "negative": caption(3), "vae": FlatVAE()}
    atlas_path = pack("nodes.host.atlas.folder").save(flat(), "a")
    published = nla_checkpoint.random_states(), nla_checkpoint.config_of((32, 32))
    nla_checkpoint.save(folders / "models" / "layered_atlases" / "a", *published)
    return {
        "EI2InflateUNet": lambda: inflate(model(), weights=weights),
        "EI2OneShotTune": lambda: tune(inflate(model())),
        "EI2InvertVideo": lambda: invert(tuned, clip()),
        "EI2Sampler": lambda: sample(tuned, noise, caption()),
        "EI2DDIMSampler": lambda: run("sampler.EI2DDIMSampler", model=tuned, latent=noise, seed=0, eta=0.0),
        "EI2SaveWeights": lambda: run("tuned_weights.SaveWeights", weights=weights, file_name="a", folder="output/ei2"),
        "EI2LoadWeights": lambda: run("tuned_weights.LoadWeights", file_name=path.name),
        "EI2VideoMetrics": lambda: run("video_metrics.VideoMetrics", images=frames),
        "EI2OpticalFlow": lambda: run(
            "optical_flow.OpticalFlow", images=torch.rand(2, 16, 16, 3), method="auto", changing_light=False
        ),
        "EI2FitAtlas": lambda: run(
            "fit_atlas.FitAtlas", images=still(), motion="rigid", preset="preview", seed=0, max_frames=9
        ),
        "EI2SaveAtlas": lambda: run("atlas_files.SaveAtlas", atlas=flat(), file_name="a"),
        "EI2LoadAtlas": lambda: run("atlas_files.LoadAtlas", file_name=atlas_path.name),
        "EI2InspectAtlas": lambda: run("edit_atlas.InspectAtlas", atlas=flat(), squares=4),
        "EI2ReplaceAtlas": lambda: run(
            "edit_atlas.ReplaceAtlas",
            atlas=flat(),
            picture=torch.ones(1, 4, 4, 3),
            layer="foreground",
            images=torch.rand(2, 8, 8, 3),
        ),
        "EI2AtlasKeyFrames": lambda: run("key_frames.AtlasKeyFrames", **of_flat, layer="foreground", count=2),
        "EI2EditKeyFrames": lambda: run(
            "edit_key_frames.EditKeyFrames",
            **of_flat,
            **painter,
            key_frames=both,
            way="inter-frame propagation",
            start="noise",
            seed=0,
            steps=2,
            cfg=1.0,
            denoise=0.5,
            resolution=64,
            control_net=controlnet(),
        ),
        "EI2AggregateAtlas": lambda: run(
            "aggregate_atlas.AggregateAtlas",
            **of_flat,
            key_frames=both,
            edited=torch.rand(2, 8, 8, 3),
            method="network",
        ),
        "EI2RenderAtlas": lambda: run("aggregate_atlas.RenderAtlas", **of_flat),
        "EI2CarryKeyFrame": lambda: run(
            "carry_key_frame.CarryKeyFrame",
            images=torch.rand(2, 32, 32, 3),
            source=torch.rand(2, 32, 32, 3),
            mask=torch.ones(1, 32, 32),
            key_frame=-1,
            grow=0.0,
        ),
        "EI2ImportNLA": lambda: run("import_nla.ImportNLA", images=torch.rand(2, 32, 32, 3), checkpoint="a"),
        "EI2LoadDemoModel": lambda: run("demo_model.LoadDemoModel"),
        "EI2DemoClip": lambda: run("demo_model.DemoClip", **red, **blue),
        "EI2SeveralEdits": lambda: run(
            "several_edits.SeveralEdits",
            **drawn,
            vae=decoder,
            negative=empty,
            caption="a circle",
            prompts="a star",
            kind="style",
            cfg=2.0,
            strength=1.0,
            seed=0,
            sweep="nothing",
            values="",
            fps=8.0,
        ),
        "EI2PromptEdit": lambda: run("prompt_edit.PromptEdit", clip=text_encoder, caption="a circle", prompt="a star"),
        "EI2AttentionControl": lambda: run(
            "attention_control.AttentionControl",
            prompt_edit=prompt_edit(),
            kind="custom",
            cross_share=0.5,
            self_share=0.5,
            temporal_share=0.5,
            feature_share=0.5,
            blend_threshold=0.3,
            noise_share=0.5,
            source="along the inversion",
        ),
        "EI2EditGuider": lambda: edited(tuned, noise, controls(noise_share=1.0, blend_threshold=0.3)),
        "EI2AttentionMaps": lambda: run("attention_maps.AttentionMaps", **drawn, caption="a circle"),
        "EI2NullText": lambda: fitted(tuned, noise),
        "EI2LoadClip": lambda: run("load_clip.LoadClip", **video, **numbers),
        "EI2Compare": lambda: run(
            "compare.Compare", a=frames, b=frames, label_a="", label_b="", mode="difference", fps=8
        ),
    }


def flat():
    """An atlas of one layer."""
    atlas, maps, texture = (pack(f"ei2_modules.atlas.{name}") for name in ("atlas", "maps", "texture"))
    box = texture.Box(-1.0, -1.0, 1.0, 1.0, 6, 6)
    plane = maps.Maps(torch.eye(3)[None, :2].repeat(2, 1, 1))
    return atlas.Atlas((8, 8), (atlas.Layer(plane, box, torch.rand(3, 6, 6), torch.ones(6, 6, dtype=torch.bool)),), ())


class FlatVAE:
    """Four channels, eight pixels a latent."""

    def encode(self, images):
        return torch.zeros(len(images), 4, images.shape[1] // 8, images.shape[2] // 8)

    def decode(self, latents):
        return torch.rand(len(latents), 8 * latents.shape[2], 8 * latents.shape[3], 3)


def still():
    """A clip whose flow agrees."""
    return torch.rand(1, 40, 40, 3).expand(2, -1, -1, -1)


def test_nothing_of_the_host_is_replaced(ways, host_before):
    assert ways.keys() == {node.define_schema().node_id for node in pack("nodes.extension").NODES}
    for way in ways.values():
        way()
    assert host_as_it_was.changed(host_before, host_as_it_was.look()) == []


@pytest.mark.parametrize("where", ["module", "method"])
def test_a_replacement_is_seen(where, host_before, monkeypatch):
    import comfy.samplers

    owner, name = {"module": (comfy.samplers, "sample"), "method": (comfy.samplers.CFGGuider, "sample")}[where]
    monkeypatch.setattr(owner, name, lambda *args: None)
    assert host_as_it_was.changed(host_before, host_as_it_was.look()) != []
