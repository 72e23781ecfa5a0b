"""The blueprint "StableVideo one-shot": put in by hand, and equal to the single nodes of its template."""

import pytest
import safetensors.numpy

from tools.demo.template_files import SMALL
from tools.server import editor
from tools.server.api_prompt import find, find_id

from .test_blueprint import SEEN

pytestmark = pytest.mark.skipif(not editor.chromium(), reason="no Chromium: apt install chromium, or set CHROMIUM")

NAME, TEMPLATE = "StableVideo one-shot", "08_stable_video_demo"
WIDGETS = {
    "prompt": "a striped yellow circle on a black background",
    "negative_prompt": "",
    "motion": "affine",
    "layer": "foreground",
    "key_frames": "0, 4, 7",
    "resolution": 64,
    "cfg": 5.0,
    "seed": 0,
}
INPUTS = {"model": "MODEL", "clip": "CLIP", "vae": "VAE", "control_net": "CONTROL_NET", "images": "IMAGE",
          "mask": "MASK"}  # fmt: skip
OUTPUTS = {"images": "IMAGE", "picture": "IMAGE", "atlas": "EI2_ATLAS", "report": "STRING"}
WIRE = """widgets => {
  const [node] = app.graph._nodes;
  const add = type => app.graph.add(LiteGraph.createNode(type));
  const [model, clip, encode] = ["EI2LoadDemoModel", "EI2DemoClip", "VAEEncode"].map(add);
  const [latent, text] = ["SaveLatent", "PreviewAny"].map(add);
  ["model", "clip", "vae", "control_net"].forEach((name, slot) => model.connect(slot, node, name));
  clip.connect(0, node, "images"), clip.connect(2, node, "mask");
  node.connect(0, encode, "pixels"), model.connect(2, encode, "vae"), encode.connect(0, latent, "samples");
  node.connect(3, text, "source");
  for (const [name, value] of Object.entries(widgets)) node.widgets.find(w => w.name === name).value = value;
  return app.graphToPrompt().then(prompt => prompt.output);
}"""


@pytest.fixture(scope="module")
def opened(server) -> dict:
    """What the editor shows of it, the prompt that the editor makes of it, and that of the template."""
    with editor.editor(server) as page:
        page.evaluate("app.graph.clear()")
        editor.put_in(page, NAME)
        found = {"seen": page.evaluate(SEEN), "folded": page.evaluate(WIRE, WIDGETS)}
        editor.load(page, server.request(f"/api/workflow_templates/ComfyUI-EI2/{TEMPLATE}.json"))
        return found | {"single": page.evaluate("app.graphToPrompt().then(prompt => prompt.output)")}


def test_it_is_put_in_from_the_node_library(opened):
    kinds = {name: {str: "string"}.get(type(value), "number") for name, value in WIDGETS.items()}
    assert opened["seen"] == {"title": NAME, "widgets": kinds, "inputs": INPUTS, "outputs": OUTPUTS, "faulty": []}


def result(server, prompt: dict, name: str) -> bytes:
    """Latents of the images, of a small run."""
    find(prompt, "EI2EditKeyFrames")["steps"] = SMALL["EI2EditKeyFrames"]["steps"]
    find(prompt, "EI2FitAtlas")["preset"] = "preview"
    find(prompt, "SaveLatent")["filename_prefix"] = name
    outputs = server.run(prompt)
    (saved,) = outputs[find_id(prompt, "SaveLatent")]["latents"]
    return safetensors.numpy.load_file(server.output(saved))["latent_tensor"].tobytes()


def test_it_gives_what_the_single_nodes_give(server, opened):
    """Bit for bit, through the editor's own unfolding; another prompt gives something else."""
    single = opened["single"]
    later = ("CreateVideo", "SaveVideo", "EI2Compare", "PreviewAny", "PreviewImage")
    single = {i: node for i, node in single.items() if node["class_type"] not in later}
    vae = [find_id(single, "EI2LoadDemoModel"), 2]
    encode = {"pixels": [find_id(single, "EI2RenderAtlas"), 0], "vae": vae}
    single |= {
        "encode": {"class_type": "VAEEncode", "inputs": encode},
        "save": {"class_type": "SaveLatent", "inputs": {"samples": ["encode", 0]}},
    }
    folded = opened["folded"]
    first = result(server, folded, "folded_atlas")
    assert first == result(server, single, "single_atlas")
    find(folded, "EI2EditKeyFrames")["seed"] = 9
    assert first != result(server, folded, "folded_atlas_again")
