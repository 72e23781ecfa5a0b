"""The blueprint "EI² one-shot edit": offered, put in by hand, and equal to the single nodes that it folds."""

import pytest
import safetensors.numpy

from tools.demo import scene
from tools.server import editor
from tools.server.api_prompt import ALWAYS_TUNE, find, find_id

NAME = "EI² one-shot edit"
WIDGETS = {
    "caption": "a red circle moving on a blue background",
    "prompt": "a green circle moving on a blue background",
    "tuning_steps": 3,
    "cfg": 4.0,
    "kind": "appearance",
}
INPUTS = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "images": "IMAGE"}
OUTPUTS = {"images": "IMAGE", "weights": "EI2_WEIGHTS", "report": "STRING"}


def test_the_server_offers_it(server):
    offered = server.request("/global_subgraphs").values()
    assert [e["info"]["node_pack"] for e in offered if e["name"] == NAME] == ["custom_nodes.ComfyUI-EI2"]


SEEN = """() => {
  const [node] = app.graph._nodes;
  const faulty = n => n.has_errors || !LiteGraph.registered_node_types[n.type];
  const widgets = Object.fromEntries(node.widgets.map(w => [w.name, typeof w.value]));
  const types = slots => Object.fromEntries(slots.map(s => [s.name, s.type]));
  return {
    title: node.title, widgets, inputs: types(node.inputs.filter(i => !(i.name in widgets))),
    outputs: types(node.outputs), faulty: [node, ...node.subgraph.nodes].filter(faulty).map(n => n.type),
  };
}"""

WIRE = """widgets => {
  const [node] = app.graph._nodes;
  const add = type => app.graph.add(LiteGraph.createNode(type));
  const [model, clip, encode] = ["EI2LoadDemoModel", "EI2DemoClip", "VAEEncode"].map(add);
  const [latent, weights, text] = ["SaveLatent", "EI2SaveWeights", "PreviewAny"].map(add);
  ["model", "clip", "vae"].forEach((name, slot) => model.connect(slot, node, name));
  clip.connect(0, node, "images");
  node.connect(0, encode, "pixels"), model.connect(2, encode, "vae"), encode.connect(0, latent, "samples");
  node.connect(1, weights, "weights"), node.connect(2, text, "source");
  for (const [name, value] of Object.entries(widgets)) node.widgets.find(w => w.name === name).value = value;
  return app.graphToPrompt().then(prompt => prompt.output);
}"""


@pytest.fixture(scope="module")
def opened(server) -> dict:
    """What the editor shows of it, and the prompt that the editor makes of it."""
    if not editor.chromium():
        pytest.skip("no Chromium: apt install chromium, or set CHROMIUM")
    with editor.editor(server) as page:
        page.evaluate("app.graph.clear()")
        editor.put_in(page, NAME)
        return {"seen": page.evaluate(SEEN), "prompt": page.evaluate(WIRE, WIDGETS)}


def test_it_is_put_in_from_the_node_library(opened):
    assert opened["seen"] == {
        "title": NAME,
        "widgets": {
            "caption": "string",
            "prompt": "string",
            "tuning_steps": "number",
            "cfg": "number",
            "kind": "string",
        },
        "inputs": INPUTS,
        "outputs": OUTPUTS,
        "faulty": [],
    }


def single_nodes(server) -> dict:
    """The same in the nodes of the shipped template."""
    prompt = scene.load_template(server)
    find(prompt, "EI2PromptEdit").update(caption=WIDGETS["caption"], prompt=WIDGETS["prompt"])
    find(prompt, "EI2AttentionControl")["kind"] = WIDGETS["kind"]
    find(prompt, "CLIPTextEncode", EI2OneShotTune="positive")["text"] = WIDGETS["caption"]
    find(prompt, "EI2InvertVideo")["steps"] = 50
    find(prompt, "EI2OneShotTune").update(steps=WIDGETS["tuning_steps"], learning_rate=3e-5)
    find(prompt, "EI2Sampler")["cfg"] = WIDGETS["cfg"]
    made = {
        "VAEEncode": {"pixels": [find_id(prompt, "VAEDecode"), 0], "vae": [find_id(prompt, "EI2LoadDemoModel"), 2]},
        "SaveLatent": {"samples": ["VAEEncode", 0]},
        "EI2SaveWeights": {"weights": [find_id(prompt, "EI2OneShotTune"), 1], "folder": "output/ei2"},
        "PreviewAny": {"source": [find_id(prompt, "EI2InvertVideo"), 1]},
    }
    later = ("CreateVideo", "SaveVideo", "EI2VideoMetrics", "EI2Compare", "PreviewAny")
    kept = {i: node for i, node in prompt.items() if node["class_type"] not in later}
    return kept | {name: {"class_type": name, "inputs": inputs} for name, inputs in made.items()}


def results(server, prompt: dict, name: str) -> tuple:
    """(latents of the images, tuned weights, report) of a small run."""
    find(prompt, "EI2DemoClip")["frames"] = 2
    find(prompt, "EI2OneShotTune").update(ALWAYS_TUNE, preview_every=len(name))  # not a cached answer
    find(prompt, "EI2InvertVideo")["steps"] = 4
    find(prompt, "SaveLatent")["filename_prefix"] = name
    find(prompt, "EI2SaveWeights")["file_name"] = name
    ran = []
    outputs = server.run(prompt, lambda kind, data: ran.append(data.get("node")) if kind == "executing" else None)
    assert find_id(prompt, "EI2OneShotTune") in ran
    (saved,) = outputs[find_id(prompt, "SaveLatent")]["latents"]
    (weights,) = (server.folder / "output" / "ei2").glob(f"{name}_*.safetensors")
    (report,) = outputs[find_id(prompt, "PreviewAny")]["text"]
    return (*map(safetensors.numpy.load_file, (server.output(saved), weights)), report)


def test_it_gives_what_the_single_nodes_give(server, opened):
    """Latents and weights bit for bit, through the editor's own unfolding."""
    folded = results(server, opened["prompt"], "folded")
    single = results(server, single_nodes(server), "single_nodes")
    assert folded[2] == single[2] and "2 frames, 4 steps" in folded[2]
    for ours, theirs in zip(folded[:2], single[:2], strict=True):
        assert ours.keys() == theirs.keys()
        assert [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()] == []
