"""The shipped workflow through the server's API: result, caching, cancelling, wrong inputs, and nothing left behind."""

import hashlib

import pytest

from tools.demo import video_files
from tools.server.api_prompt import find
from tools.server.client import Failure


def outputs_of(outputs: dict, kind: str) -> list:
    return [item for node in outputs.values() for item in node.get(kind, [])]


def saved_video(server, outputs):
    (saved,) = (item for item in outputs_of(outputs, "images") if item["type"] == "output")
    return server.output(saved)


class Events:
    """Collects what the server tells; `interrupt_in` names a node to interrupt at its second progress report."""

    def __init__(self, server, prompt, interrupt_in=None):
        self.server, self.prompt, self.interrupt_in = server, prompt, interrupt_in
        self.ran, self.progress = [], {}

    def __call__(self, kind, data):
        if kind == "executing" and data.get("node"):
            self.ran.append(self.prompt[data["node"]]["class_type"])
        if kind == "progress":  # it says of which node: the next one may be running when it arrives
            node = self.prompt[data["node"]]["class_type"]
            self.progress[node] = data["value"], data["max"]
            if node == self.interrupt_in and data["value"] >= 2:
                self.server.request("/interrupt", {})
                self.interrupt_in = None


def test_it_runs_to_a_video_with_figures(server, first_edit):
    prompt = first_edit()
    events = Events(server, prompt)
    outputs = server.run(prompt, events)
    frames = video_files.read(saved_video(server, outputs))
    assert [frame.size for frame in frames] == [(64, 64)] * 3
    (figures,) = outputs_of(outputs, "metrics")
    assert figures["frames"] == 3 and figures["motion"] > 0
    assert any("dB PSNR" in text for text in outputs_of(outputs, "text"))
    assert list((server.folder / "output" / "ei2").glob("my_clip_*.safetensors"))
    assert events.progress["EI2OneShotTune"] == (3, 3)
    assert events.progress["EI2InvertVideo"] == (8, 8)  # there, and back for the report
    assert events.progress["EI2Sampler"] == (4, 4)


def test_new_words_do_not_tune_again(server, first_edit):
    server.run(first_edit())
    prompt = first_edit()
    find(prompt, "EI2PromptEdit")["prompt"] = "a bear"
    events = Events(server, prompt)
    server.run(prompt, events)
    assert "EI2Sampler" in events.ran and not {"EI2OneShotTune", "EI2InvertVideo"} & set(events.ran)


def test_another_seed_gives_another_tuning(server, first_edit):
    server.run(first_edit())
    prompt = first_edit(EI2OneShotTune={"seed": 34})
    events = Events(server, prompt)
    server.run(prompt, events)
    assert {"EI2OneShotTune", "EI2InvertVideo", "EI2Sampler"} <= set(events.ran)


def test_tuned_once_and_used_again(server, first_edit):
    """As after a restart: the saved file in place of the tuning gives the same clip."""
    prompt = first_edit(EI2SaveWeights={"file_name": "kept"}, EI2OneShotTune={"seed": 7})
    tuned = video_files.read(saved_video(server, server.run(prompt)))
    listed = server.request("/object_info/EI2LoadWeights")["EI2LoadWeights"]["input"]["required"]["file_name"]
    name = next(name for name in listed[1]["options"] if name.startswith("kept_"))
    events = Events(server, with_weights(prompt, name))
    loaded = video_files.read(saved_video(server, server.run(events.prompt, events)))
    assert "EI2OneShotTune" not in events.ran and "EI2Sampler" in events.ran
    assert all(a.tobytes() == b.tobytes() for a, b in zip(tuned, loaded, strict=True))


def test_weights_that_are_gone(server, first_edit):
    events = Events(server, with_weights(first_edit(), "gone.safetensors"))
    with pytest.raises(Failure, match=r"'gone\.safetensors' is in neither output/ei2 nor models/ei2"):
        server.run(events.prompt, events)
    assert events.ran == []


def with_weights(prompt, name):
    """The same prompt with Load EI² Weights in place of One-Shot Tune and Save."""
    inflated = find(prompt, "EI2OneShotTune")["model"]
    find(prompt, "EI2InflateUNet")["weights"] = ["loader", 0]
    for node in ("EI2InvertVideo", "EI2Sampler"):
        find(prompt, node)["model"] = inflated
    kept = {i: n for i, n in prompt.items() if n["class_type"] not in ("EI2OneShotTune", "EI2SaveWeights")}
    return {**kept, "loader": {"class_type": "EI2LoadWeights", "inputs": {"file_name": name}}}


def test_cancelled_in_the_middle(server, first_edit):
    """Tuning keeps what it has; the same prompt runs to its end afterwards, and the plain model is as it was."""
    before = plain_picture(server, first_edit)
    unfinished = server.folder / "output" / "ei2"
    kept = len(list(unfinished.glob("unfinished_*.safetensors")))
    steps = {"EI2OneShotTune": {"steps": 6, "seed": 14}, "EI2InvertVideo": {"steps": 6}}  # nothing earlier fits
    prompt = first_edit(**steps)
    for node in ("EI2OneShotTune", "EI2InvertVideo", "EI2Sampler"):
        with pytest.raises(Failure, match="interrupted"):
            server.run(prompt, Events(server, prompt, interrupt_in=node))
        assert len(list(unfinished.glob("unfinished_*.safetensors"))) - kept == 1, node
    assert plain_picture(server, first_edit) == before
    assert saved_video(server, server.run(prompt)).exists()


def plain_picture(server, first_edit) -> str:
    """What the checkpoint makes without any node of ours, as a hash of its latents."""
    edit = first_edit()
    loader = next(i for i, node in edit.items() if node["class_type"] == "CheckpointLoaderSimple")
    words = next(i for i, node in edit.items() if node["class_type"] == "CLIPTextEncode")
    plain_picture.calls = getattr(plain_picture, "calls", 0) + 1  # another name each time: no cached answer
    prompt = {
        loader: edit[loader],
        words: {"class_type": "CLIPTextEncode", "inputs": {**edit[words]["inputs"], "text": "a rabbit"}},
        "a": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 2}},
        "b": {
            "class_type": "KSampler",
            "inputs": {
                "model": [loader, 0], "positive": [words, 0], "negative": [words, 0], "latent_image": ["a", 0],
                "seed": 5, "steps": 2, "cfg": 3.0 + 1e-9 * plain_picture.calls, "sampler_name": "euler",
                "scheduler": "normal", "denoise": 1.0,
            },
        },
        "c": {
            "class_type": "SaveLatent",
            "inputs": {"samples": ["b", 0], "filename_prefix": f"plain_{plain_picture.calls}"},
        },
    }  # fmt: skip
    (saved,) = outputs_of(server.run(prompt), "latents")
    from safetensors.numpy import load_file

    tensors = load_file(server.output(saved))
    return hashlib.sha256(tensors["latent_tensor"].tobytes()).hexdigest()


def only_output(prompt, class_type):
    """Without the other output nodes: the server runs what it can when only some of them are at fault."""
    outputs = {"SaveVideo", "EI2Compare", "EI2SaveWeights", "EI2VideoMetrics", "PreviewAny"} - {class_type}
    return {i: node for i, node in prompt.items() if node["class_type"] not in outputs}


REFUSED_BEFORE_RUNNING = [
    ({"EI2OneShotTune": {"steps": 0}}, "steps"),
    ({"EI2OneShotTune": {"precision": "fp7"}}, "fp7"),
    ({"EI2InvertVideo": {"steps": 0}}, "steps"),
    ({"EI2InflateUNet": {"mode": "EI3"}}, "EI3"),
    ({"EI2InflateUNet": {"coarse_ratio": 0}}, "coarse_ratio"),
    ({"EI2SaveWeights": {"file_name": "../clip"}}, "cannot be a file name"),
    ({"EI2SaveWeights": {"file_name": "a/b"}}, "cannot be a file name"),
    ({"EI2SaveWeights": {"file_name": ""}}, "cannot be a file name"),
    ({"EI2SaveWeights": {"folder": "/"}}, "must be one of"),
    ({"EI2OneShotTune": {"model": ["1", 1]}}, "type"),
]


@pytest.mark.parametrize("changes, message", REFUSED_BEFORE_RUNNING)
def test_refused_before_running(server, first_edit, changes, message):
    (node,) = changes
    prompt = only_output(first_edit(**changes), "EI2SaveWeights" if node == "EI2SaveWeights" else "SaveVideo")
    events = Events(server, prompt)
    with pytest.raises(Failure) as refusal:
        server.run(prompt, events)
    assert events.ran == [] and node in str(refusal.value) and message in str(refusal.value)


def without_inflating(prompt):
    plain = find(prompt, "EI2InflateUNet")["model"]
    for node in ("EI2OneShotTune", "EI2InvertVideo", "EI2Sampler"):
        find(prompt, node)["model"] = plain


def without_inverting(prompt):
    find(prompt, "EI2Sampler")["latent"] = find(prompt, "EI2InvertVideo")["latents"]


def with_other_steps(prompt):
    find(prompt, "EI2Sampler")["steps"] = 7


def without_words(prompt):
    find(prompt, "PrimitiveStringMultiline")["value"] = ""


REFUSED_WHILE_RUNNING = [  # change, message, whether the clip was tuned before
    (without_inflating, "gets the plain model of CheckpointLoaderSimple", False),
    (without_inverting, "which are not inverted: wire the LATENT of DDIM Invert Video", False),
    (without_words, "EI2PromptEdit .* has no caption", False),
    (with_other_steps, "was inverted in 4 steps", True),
]


@pytest.mark.parametrize("change, message, tuned", REFUSED_WHILE_RUNNING)
def test_refused_while_running(server, first_edit, change, message, tuned):
    prompt = first_edit(EI2OneShotTune={"seed": 1000 + len(message)})  # nothing of an earlier run fits
    change(prompt)
    events = Events(server, prompt)
    with pytest.raises(Failure, match=message):
        server.run(prompt, events)
    assert ("EI2OneShotTune" in events.progress) == tuned
