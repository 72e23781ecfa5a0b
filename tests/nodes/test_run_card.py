"""What a tuning says of itself: in the header of its weights, and in the card beside them."""

import json
from types import SimpleNamespace

import pytest

from .mini import inflate, model, pack, run, tune

run_card, prompt_graph = pack("nodes.host.tuning.run_card"), pack("nodes.host.prompt_graph")

GRAPH = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["9", 1], "text": "a rabbit in the grass"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["9", 1], "text": ["3", 0]}},
    "3": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}},
    "4": {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["1", 0], "conditioning_2": ["2", 0]}},
    "5": {
        "class_type": "Tune",
        "inputs": {
            "one": ["1", 0],
            "linked": ["2", 0],
            "two": ["4", 0],
            "loop": ["6", 0],
            "first": ["8", 0],
            "second": ["8", 1],
            "caption": ["10", 0],
            "prompt": ["10", 1],
        },
    },
    "6": {"class_type": "Loop", "inputs": {"text": "round", "again": ["6", 0], "steps": 3}},
    "7": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["1", 0], "negative": ["2", 0]}},
    "8": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["7", 0], "negative": ["7", 1]}},
    "9": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "model.safetensors"}},
    "10": {"class_type": "EI2PromptEdit", "inputs": {"caption": "a cat", "prompt": ["3", 0], "weights": "cat: 2"}},
}
WORDS = {"one": "a rabbit in the grass", "linked": "a fox", "two": "a rabbit in the grass | a fox", "loop": "round",
         "first": "a rabbit in the grass", "second": "a fox", "caption": "a cat", "prompt": "a fox"}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_the_words_behind_an_input(name):
    assert prompt_graph.words_behind(GRAPH, "5", name) == WORDS[name]


@pytest.mark.parametrize("graph, node", [(None, None), (GRAPH, None), (GRAPH, "78"), ({}, "5")])
def test_no_graph_no_words(graph, node):
    assert prompt_graph.words_behind(graph, node, "one") is None
    assert prompt_graph.words_behind(GRAPH, "5", "no such input") is None


def test_the_card_lies_beside_the_weights_and_in_their_header(folders, monkeypatch):
    node = pack("nodes.one_shot_tune").OneShotTune
    monkeypatch.setattr(node, "hidden", SimpleNamespace(prompt={**GRAPH, "77": {"inputs": {"positive": ["1", 0]}}},
                                                        unique_id="77"))  # fmt: skip
    _, weights, losses = tune(inflate(model()), steps=20)
    run("tuned_weights.SaveWeights", weights=weights, file_name="clip", folder="output/ei2")
    folder = folders / "output" / "ei2"
    card = json.loads((folder / "clip_00001_.json").read_text(encoding="utf-8"))
    header = pack("ei2_modules.inflation.weights").load(folder / "clip_00001_.safetensors").header
    assert {k: v for k, v in card.items() if k not in ("family", "prediction", "options")} == header.run
    assert card["caption"] == "a rabbit in the grass"
    assert card["losses"] == pytest.approx(losses["loss"], abs=1e-6)
    assert card["loss_first"] == pytest.approx(sum(losses["loss"][:2]) / 2)
    assert card["loss_last"] == pytest.approx(sum(losses["loss"][-2:]) / 2)
    assert (card["steps"], card["seed"], card["frames"], card["latent_size"]) == (20, 33, 3, [8, 8])
    assert card["options"]["attention"] == "FFAM" and card["family"] == "SD15"
    assert card["seconds"] > 0 and card["peak_mib"] > 100 and card["gradient_checkpointing"] is False
    assert all(card[name] for name in ("version", "comfyui", "torch", "python", "device"))


def test_losses_of_nothing():
    assert run_card.losses([]) == {"loss_first": None, "loss_last": None, "losses": []}


def test_a_card_that_cannot_be_written_is_said_and_the_weights_are_there(folders, monkeypatch, caplog):
    storage = pack("nodes.host.files.weights_folder")

    def full(*args, **kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(storage.Path, "write_text", full)
    path = storage.save(tune(inflate(model()))[1], "clip", "output/ei2")
    assert path.exists() and not path.with_suffix(".json").exists()
    assert "the run card" in caplog.text and "No space left" in caplog.text
