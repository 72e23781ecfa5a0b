"""What later nodes would refuse is found before a long one begins."""

from types import SimpleNamespace

import pytest

from .mini import pack

ahead, EI2Error = pack("nodes.host.graph_ahead"), pack("ei2_modules.errors").EI2Error


def node(kind, title=None, **inputs):
    return {"class_type": kind, "inputs": inputs, **({"_meta": {"title": title}} if title else {})}


def graph(**changes):
    """Load, inflate, tune, invert, edit with control."""
    made = {
        "load": node("CheckpointLoaderSimple", "Load Checkpoint", ckpt_name="a.safetensors"),
        "clip": node("EI2LoadClip", file="clip.mp4"),
        "encode": node("VAEEncode", "VAE Encode", pixels=["clip", 0], vae=["load", 2]),
        "caption": node("CLIPTextEncode", clip=["load", 1], text="a cat"),
        "inflate": node("EI2InflateUNet", model=["load", 0]),
        "tune": node("EI2OneShotTune", model=["inflate", 0], latents=["encode", 0], positive=["caption", 0]),
        "invert": node("EI2InvertVideo", model=["tune", 0], latents=["encode", 0], positive=["caption", 0]),
        "words": node("EI2PromptEdit", "Prompt Edit", clip=["load", 1], caption="a cat", prompt="a dog"),
        "control": node("EI2AttentionControl", prompt_edit=["words", 2]),
        "mask": node("SetLatentNoiseMask", samples=["invert", 0]),
        "sample": node(
            "EI2Sampler", "EI² Sampler", model=["tune", 0], latent=["mask", 0], positive=["words", 1],
            control=["control", 0],
        ),
        "save": node("SaveLatent", samples=["sample", 0]),
    }  # fmt: skip
    for name, inputs in changes.items():
        made[name] = inputs if "class_type" in inputs else {**made[name], "inputs": made[name]["inputs"] | inputs}
    return made


def look(prompt, at="tune"):
    ahead.look_ahead(SimpleNamespace(prompt=prompt, unique_id=at))


OTHER = node("EI2LoadDemoModel", "Load EI² Demo Model")


def under_null_text(cfg=7.5, **control):
    """The same with a null text."""
    return graph(
        null=node("EI2NullText", "Null-Text Inversion", model=["tune", 0], latent=["invert", 0], cfg=7.5),
        control={"source": "null text", "null_text": ["null", 0]} | control, sample={"cfg": cfg},
    )  # fmt: skip


SEVERAL = node("EI2SeveralEdits", control=["control", 0], cfg=3.0)
FINE = {
    "a null text": under_null_text(),
    "a null text for several values of cfg": under_null_text() | {"sample": SEVERAL},
    "a null text that is not used": under_null_text(3.0, source="own prediction"),
    "a cfg that the graph does not tell": under_null_text(["sum", 0]),
    "as it should be": graph(),
    "no inflation to be seen": graph(inflate=node("SomeSwitch", model_a=["load", 0])),
    "a plain model through nodes unknown": graph(sample={"model": ["switch", 0]}, switch=node("X", any=["load", 0])),
    "noise from elsewhere": graph(sample={"latent": ["noise", 0]}, noise=node("LoadLatent", latent="x.latent")),
    "sampled latents": graph(sample={"latent": ["k", 0]}, k=node("KSampler", latent_image=["encode", 0])),
    "another text": graph(words={"caption": ["s", 0]}, s=node("PrimitiveString", value="a cat")),
    "words that the graph does not tell": graph(words={"caption": ["s", 0], "prompt": ["s", 0]}, s=node("Llm", seed=1)),
    "equal words that control nothing": graph(words={"prompt": "a cat"}, sample={"control": ["other", 0]}),
    "widgets that hold lists": graph(
        clip=node("EI2LoadClip", points=[[1, 2]], rows=[{"on": True}], none=[], three=["load", 0, 1]),
        caption={"curve": [[0.0, 1.0], [1.0, 0.0]]},
        mask={"samples": [["encode"], 0]},
    ),
    "a loop": graph(mask={"samples": ["mask", 0]}),
    "the text encoder of another checkpoint": graph(
        words={"clip": ["second", 1]}, second=node("CheckpointLoaderSimple", ckpt_name="b.safetensors")
    ),
    "a branch that does not need it": graph(
        second=node("EI2Sampler", model=["load", 0], latent=["encode", 0], positive=["caption", 0])
    ),
}


@pytest.mark.parametrize("prompt", FINE.values(), ids=FINE)
@pytest.mark.parametrize("at", ["tune", "invert"])
def test_nothing_is_refused(prompt, at):
    look(prompt, at)


def test_a_node_that_runs_without_a_server_or_alone():
    for hidden in (None, SimpleNamespace(prompt=None, unique_id=None), SimpleNamespace(prompt=graph(), unique_id="9")):
        ahead.look_ahead(hidden)


FAULTS = {
    "clean latents": (
        graph(sample={"latent": ["encode", 0]}),
        r"EI² Sampler \(node sample\) gets the latents of VAE Encode \(node encode\), which are not inverted: wire",
    ),
    "clean latents to the sampler of others": (
        graph(ddim=node("EI2DDIMSampler", model=["tune", 0], latent=["encode", 0])),
        r"EI2DDIMSampler \(node ddim\) gets the latents of VAE Encode",
    ),
    "clean latents behind a mask": (graph(mask={"samples": ["encode", 0]}), "which are not inverted"),
    "an empty latent": (
        graph(sample={"latent": ["e", 0]}, e=node("EmptyLatentImage", width=64)),
        r"the latents of EmptyLatentImage \(node e\)",
    ),
    "the plain model to the sampler": (
        graph(sample={"model": ["load", 0]}),
        r"EI² Sampler \(node sample\) gets the plain model of Load Checkpoint \(node load\): wire the MODEL of One-S",
    ),
    "a plain model with a LoRA to the inversion": (
        graph(invert={"model": ["lora", 0]}, lora=node("LoraLoaderModelOnly", model=["load", 0])),
        r"EI2InvertVideo \(node invert\) gets the plain model of Load Checkpoint",
    ),
    "text of the demo model": (
        graph(words={"clip": ["other", 1]}, other=OTHER),
        r"encoded by the CLIP of Load EI² Demo Model \(node other\), but its model is that of Load Checkpoint",
    ),
    "text for the demo model": (graph(load=OTHER, words={"clip": ["x", 1]}, x=node("CLIPLoader")), "from one loader"),
    "clean latents to the guider": (
        graph(guide=node("EI2EditGuider", model=["tune", 0], latent=["encode", 0], control=["control", 0])),
        r"EI2EditGuider \(node guide\) gets the latents of VAE Encode",
    ),
    "clean latents to null text": (
        under_null_text() | {"null": node("EI2NullText", latent=["encode", 0])},
        r"EI2NullText \(node null\) gets the latents of VAE Encode",
    ),
    "a plain model to the maps": (
        graph(maps=node("EI2AttentionMaps", model=["load", 0], latent=["invert", 0])),
        "EI2AttentionMaps .* the plain model",
    ),
    "no null text": (
        graph(control={"source": "null text"}),
        r"EI2AttentionControl \(node control\) has source null text and nothing in null_text: wire",
    ),
    "a null text for another cfg": (
        under_null_text(3.0),
        r"Null-Text Inversion \(node null\) fits cfg 7.5, and EI² Sampler \(node sample\) has cfg 3:",
    ),
    "no prompt": (graph(words={"prompt": " "}), r"Prompt Edit \(node words\) has no prompt: say there"),
    "neither": (graph(words={"caption": "", "prompt": ["s", 0]}, s=node("PrimitiveString", value="")), "no caption an"),
    "the caption as prompt": (graph(words={"prompt": "a cat"}), "has 'a cat' as caption and as prompt: change a word"),
}  # fmt: skip


@pytest.mark.parametrize("prompt, message", FAULTS.values(), ids=FAULTS)
def test_what_a_later_node_would_refuse(prompt, message):
    with pytest.raises(EI2Error, match="Nothing was begun: a node would refuse what it gets.*" + message):
        look(prompt)


def test_every_fault_is_named_once():
    """Two samplers, each with its own; the words that they share have one fault."""
    wrong = graph(words={"prompt": ""}, sample={"latent": ["encode", 0]})
    wrong["second"] = {**wrong["sample"], "inputs": wrong["sample"]["inputs"] | {"latent": ["invert", 0]}}
    with pytest.raises(EI2Error) as refusal:
        look(wrong)
    assert str(refusal.value).count("has no prompt") == 1 and str(refusal.value).count("not inverted") == 1


def uncontrolled(**changes):
    prompt = graph(sample={"positive": ["caption", 0]}, **changes)
    del prompt["sample"]["inputs"]["control"]
    return prompt


SAID = {
    "nothing": (graph(), []),
    "the caption in place of a controlled prompt": (graph(sample={"positive": ["caption", 0]}), []),
    "an empty caption": (graph(caption={"text": ""}), [r"EI2OneShotTune (node tune) learns an empty caption"]),
    "the caption as an uncontrolled prompt": (uncontrolled(), ["EI² Sampler (node sample) has the caption that was"]),
    "both empty": (uncontrolled(caption={"text": ""}), ["learns an empty caption"]),
}


@pytest.mark.parametrize("prompt, lines", SAID.values(), ids=SAID)
def test_what_would_be_without_effect_is_said(prompt, lines, caplog):
    look(prompt)
    look(prompt, "invert")  # nothing is said twice
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(lines) and all(line in text for line, text in zip(lines, said, strict=True))


@pytest.mark.parametrize(
    "name", ["one_shot_tune.OneShotTune", "invert_video.InvertVideo", "null_text.NullTextInversion"]
)
def test_the_long_nodes_look_first(name, monkeypatch):
    """Before they look at anything else: nothing here could be tuned or inverted."""
    module, kind = name.split(".")
    long = getattr(pack(f"nodes.{module}"), kind)
    at = {"OneShotTune": "tune", "InvertVideo": "invert", "NullTextInversion": "sample"}[kind]
    monkeypatch.setattr(long, "hidden", SimpleNamespace(prompt=FAULTS["no prompt"][0], unique_id=at))
    given = dict.fromkeys(entry.id for entry in long.define_schema().inputs)
    with pytest.raises(EI2Error, match="has no prompt"):
        long.execute(**given)
