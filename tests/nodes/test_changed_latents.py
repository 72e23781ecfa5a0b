"""What other nodes make of an inverted latent: what cannot work is refused, the rest is said, nothing passes unseen."""

import logging
import re

import comfy.sample
import comfy_extras.nodes_post_processing  # noqa: F401  a newer host's nodes_latent can only be imported behind it

# isort: split
import comfy_extras.nodes_latent as latent_nodes
import comfy_extras.nodes_rebatch as rebatch
import pytest
import torch

import nodes as host_nodes

from .mini import caption, clip, custom_advanced, inflate, invert, model, pack, run, sample, tune
from .other_nodes import run_node

EI2Error = pack("ei2_modules.errors").EI2Error
RECORD = pack("nodes.host.sampling.record").RECORD
FRAMES, SIDE, STEPS = 3, 16, 10
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}


@pytest.fixture(scope="module")
def ready():
    """(inflated model, an inverted latent, that of another clip): wide noise, and it leads back, as a real model's."""
    with torch.inference_mode():
        m = inflate(model(scale=0.8, **SMALL))
        return m, *(invert(m, clip(FRAMES, SIDE, SIDE, seed=seed), steps=STEPS, iterations=4)[0] for seed in (2, 7))


def by_sampler(m, latent):
    sampler, sigmas, _ = run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)
    return custom_advanced(m, latent, sampler, sigmas, cfg=1.0)["samples"]


WAYS = {"EI² Sampler": sample, "EI² DDIM Sampler": by_sampler}


def finished(m, latent, end=10000):
    """The clip that KSampler (Advanced) makes of it; it hands the record on."""
    return host_nodes.KSamplerAdvanced().sample(
        m, "disable", 0, STEPS, 1.0, "euler", "ddim_uniform", caption(), caption(3), latent, 0, end, "disable"
    )[0]


def joined(a, b):
    return run_node(latent_nodes.LatentBatch, a, b)


def pasted(m, a, b):
    """A finished clip over a part of the noise."""
    return host_nodes.LatentComposite().composite(a, {"samples": finished(m, b)["samples"][:1, :, :8, :8]}, 0, 0)[0]


def picked(latent, *frames):
    """What a pack's node for selecting and reordering does."""
    return {**latent, "samples": latent["samples"][list(frames)]}


REFUSED = {
    "a finished clip": (lambda m, a, b: finished(m, a), "Frames 1 to 3 of the latent are no inverted.*clip's was"),
    "finished by our own sampler": (lambda m, a, b: {**a, "samples": by_sampler(m, a)}, "Frames 1 to 3 .* are no inv"),
    "one clean frame": (lambda m, a, b: {**a, "samples": torch.cat([a["samples"][:2], clip(1, SIDE, SIDE)["samples"]])},
                        "Frames 3 of the latent are no inverted noise"),
    "a clean clip joined": (lambda m, a, b: joined(a, clip(2, SIDE, SIDE)), "Frames 4 to 5 of the latent are no inv"),
    "zeros": (lambda m, a, b: {**a, "samples": torch.zeros_like(a["samples"])}, "no inverted noise: .* is 0.00, where"),
    "upscaled": (lambda m, a, b: host_nodes.LatentUpscaleBy().upscale(a, "bicubic", 1.5)[0], "16x16 and is 24x24 now"),
    "cropped": (lambda m, a, b: host_nodes.LatentCrop().crop(a, 64, 128, 0, 0)[0], "16x16 and is 8x16 now"),
    "side by side": (lambda m, a, b: run_node(latent_nodes.LatentConcat, a, b, "x"), "16x16 and is 32x16 now"),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused(ready, way, make, words):
    with pytest.raises(EI2Error, match=words):
        way(ready[0], make(*ready))


SAID = {
    "a cut": (lambda m, a, b: host_nodes.LatentFromBatch().frombatch(a, 1, 2)[0],
              "holds frames 2 to 3 of the 3 that were inverted"),
    "one batch of several": (lambda m, a, b: rebatched(a), "holds frames 1 of the 3 that were inverted"),
    "reversed": (lambda m, a, b: picked(a, 2, 1, 0), "holds frames 3, 2, 1 of the 3"),
    "repeated": (lambda m, a, b: host_nodes.RepeatLatentBatch().repeat(a, 2)[0], "frames 1 to 3, 1 to 3 of the 3"),
    "two inverted clips": (lambda m, a, b: joined(a, b), "Frames 4 to 6 of the latent are none of the 3"),
    "another clip's noise": (lambda m, a, b: {**a, "samples": b["samples"]}, "Frames 1 to 3 .* have changed"),
    "scaled": (lambda m, a, b: run_node(latent_nodes.LatentMultiply, a, 1.2), "Frames 1 to 3 .* by up to 20.0%"),
    "noise added": (lambda m, a, b: run_node(latent_nodes.LatentAdd, a, noise_like(a)), "1 to 3 .* have changed"),
    "one frame changed": (lambda m, a, b: {**a, "samples": a["samples"] * torch.tensor([1, 1.1, 1]).view(3, 1, 1, 1)},
                          "Frames 2 of the latent have changed since the inversion, by up to 10.0%"),
    "mirrored": (lambda m, a, b: host_nodes.LatentFlip().flip(a, "y-axis: horizontally")[0], "have changed"),
    "composited": (pasted, "Frames 1 to 3 of the latent have changed"),
    "cut and scaled": (lambda m, a, b: run_node(latent_nodes.LatentMultiply, picked(a, 0, 1), 1.2),
                       "Frames 1 to 2 of the latent are none of the 3"),
}  # fmt: skip


def rebatched(latent):
    """The first batch of Rebatch Latents."""
    node = rebatch.LatentRebatch
    found = node.execute([latent], [1]).args[0] if hasattr(node, "execute") else node().rebatch([latent], [1])[0]
    return {**latent, **found[0]}


def noise_like(latent):
    noise = comfy.sample.prepare_noise(latent["samples"], 3)
    return {"samples": 5 * noise}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make, words", SAID.values(), ids=SAID)
def test_what_can_work_is_said(ready, way, make, words, caplog):
    """In the log; that the node shows it too is seen below."""
    latent = make(*ready)
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        edited = way(ready[0], latent)
    told = [record.getMessage() for record in caplog.records if "EI²" in record.getMessage()]
    assert edited.isfinite().all() and len(edited) == len(latent["samples"])
    assert len(told) == 1
    assert re.search(words, told[0])


UNSAID = {
    "as it is": lambda a: a,
    "copied": lambda a: {**a, "samples": a["samples"].clone(), "batch_index": [0, 1, 2]},
    "stored in fp16": lambda a: {**a, "samples": a["samples"].half()},
    "laid out otherwise": lambda a: {**a, "samples": a["samples"].to(memory_format=torch.channels_last)},
}


@pytest.mark.parametrize("make", UNSAID.values(), ids=UNSAID)
def test_what_is_the_same_passes_in_silence(ready, make, caplog):
    with caplog.at_level(logging.WARNING):
        sample(ready[0], make(ready[1]))
    assert "EI²" not in caplog.text


def test_equal_frames_are_not_mistaken_for_each_other(caplog):
    """A clip that stands still has equal frames, whose noise may be equal too."""
    m, still = (
        inflate(model(**SMALL), attention="per-frame", mode="custom", temporal_module="none"),
        clip(1, SIDE, SIDE),
    )
    noise = invert(m, {"samples": still["samples"].expand(3, -1, -1, -1)})[0]
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        sample(m, noise)
    assert torch.equal(*noise["samples"][:2]) and "holds frames" not in caplog.text


def test_the_node_shows_it(ready, monkeypatch):
    shown = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", shown.append)
    sample(ready[0], picked(ready[1], 0, 1))
    assert [text for text in shown if "holds frames 1 to 2 of the 3" in text]


def test_it_is_refused_whatever_else_is_allowed(ready):
    with pytest.raises(EI2Error, match="no inverted noise"):
        sample(ready[0], finished(*ready[:2]), allow_mismatch=True)


@pytest.mark.parametrize("node", [tune, invert], ids=["One-Shot Tune", "DDIM Invert Video"])
def test_noise_is_not_taken_for_a_clip(ready, node):
    with pytest.raises(EI2Error, match=r"are inverted noise \(10 steps, up to sigma [\d.]+\).*takes the clip itself"):
        node(ready[0], ready[1])
    with pytest.raises(EI2Error, match="takes the clip itself"):
        node(ready[0], joined(ready[1], clip(2, SIDE, SIDE)))


def test_a_finished_clip_is_taken_for_one(ready):
    """Though a sampler handed the record on."""
    noise = invert(ready[0], finished(*ready[:2]))[0]
    assert noise[RECORD].checksums != ready[1][RECORD].checksums


NUMBERS = {(0,): "1", (0, 1, 2): "1 to 3", (2, 1, 0): "3, 2, 1", (0, 1, 4, 5, 7): "1 to 2, 5 to 6, 8",
           tuple(range(0, 20, 2)): "1, 3, 5, 7, 9, 11, 13, 15, ..."}  # fmt: skip


@pytest.mark.parametrize("frames, words", NUMBERS.items())
def test_frames_in_words(frames, words):
    assert pack("nodes.host.sampling.changes").numbers(list(frames)) == words
