"""What `python dev.py demo` runs and writes: with the miniature model on the shared server, and its options."""

import json
import re

import pytest
from PIL import Image

from tools.demo import clip, options, scene, video_files
from tools.demo.progress import Watcher
from tools.server.api_prompt import ALWAYS_TUNE, find, find_id

CLIPS = ["source", "reconstruction", "colour edit", "shape edit", "background edit", "style edit"]


def run(server, tmp_path, *arguments):
    """(what the demo reports, the stages it timed, what it ran)."""
    chosen = options.parse(["--frames", "3", "--steps", "2", "--out", str(tmp_path), *arguments])
    prompt = scene.make_prompt(chosen, server)
    for node in prompt.values():
        if node["class_type"] == "EI2InvertVideo":
            node["inputs"]["steps"] = 3
    seconds = {}
    with Watcher(prompt, seconds) as watcher:
        outputs = server.run(prompt, watcher)
    return scene.keep(chosen, server, prompt, outputs), seconds, (prompt, outputs)


def test_six_clips_of_one_scene(server, tmp_path):
    result, seconds, (prompt, outputs) = run(server, tmp_path)
    files = scene.titled(prompt, outputs, "SaveImage", "images")
    assert [(name, len(clip)) for name, clip in files.items()] == [(name, 3) for name in CLIPS]
    assert set(result["metrics"]) == set(CLIPS[1:])
    assert result["metrics"]["reconstruction"]["psnr"] != result["metrics"]["shape edit"]["psnr"]
    assert set(seconds) == {"tune", "invert", "sample"} and result["frames"] == 3
    assert Image.open(result["sheet"]).height == 6 * 128 + 5 * 4
    frames = video_files.read(tmp_path / "edit.mp4")
    assert len(frames) / scene.RATE >= scene.SECONDS and frames[0].width == 6 * 192 + 5 * 4


def test_every_clip_has_its_words(server, tmp_path):
    _, _, (prompt, outputs) = run(server, tmp_path)
    caption = "a red circle moving on a blue background"
    said = scene.words(prompt, outputs, CLIPS)
    assert said.pop("colour edit") == find(scene.load_template(server), "EI2PromptEdit")["prompt"]
    more = {name: text for name, (_, text) in scene.MORE_EDITS.items()}
    assert said == {"source": caption, "reconstruction": caption, **more}


def test_words_of_ones_own_are_the_only_edit(server, tmp_path):
    result, _, (prompt, outputs) = run(server, tmp_path, "--prompt", "a green (star:1.2)")
    assert set(result["metrics"]) == {"reconstruction", "edit"}
    assert scene.words(prompt, outputs, ["edit"]) == {"edit": "a green (star:1.2)"}


def test_the_template_is_run_as_it_is(server, tmp_path):
    """The demo adds nodes to the template and changes nothing in it but what was asked for."""
    chosen = options.parse(["--out", str(tmp_path)])
    prompt = scene.make_prompt(chosen, server)
    expected = scene.load_template(server)
    find(expected, "EI2OneShotTune").update(ALWAYS_TUNE)
    for i, node in expected.items():
        assert {**prompt[i], "_meta": None} == {**node, "_meta": None}, node["class_type"]


def test_the_examples_of_the_note_are_known_words():
    nodes = json.loads(scene.WORKFLOW.read_text(encoding="utf-8"))["nodes"]
    (note,) = (node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
    examples = re.findall(r"^\|.*\| (a .*) \|$", note.replace("**", ""), re.MULTILINE)
    (known,) = re.findall(r"^Words it knows: (.*)$", note, re.MULTILINE)
    assert len(examples) == 5
    for text in [*examples, *known.split("; ")]:
        scene.vocabulary.tokenize(text)


REFUSED = [
    (["--prompt", "a red rabbit"], "does not know 'rabbit'"),
    (["--frames", "0"], "--frames is 0"),
    (["--frames", "65"], "--frames is 65"),
    (["--size", "128"], "are for a real clip"),
    (["--caption", "a rabbit"], "are for a real clip"),
    (["--clip", "gone.mp4"], "there is no file"),
    (["--kind", "colour"], "invalid choice"),
]


@pytest.mark.parametrize("arguments, message", REFUSED)
def test_refused_with_words(capsys, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        options.parse(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_a_real_clip_goes_through_the_first_edit(server, tmp_path):
    """Without a checkpoint it is one with random weights: small, and few steps."""
    rabbit = str(clip.bunny())
    words = ["--prompt", "a fox", "--caption", "a rabbit", "--kind", "shape"]
    chosen = options.parse(["--clip", rabbit, *words, "--out", str(tmp_path)])
    assert options.real_clip(chosen) and (chosen.size, chosen.steps) == (64, 20)
    chosen.frames, chosen.steps = 3, 2
    prompt = clip.make_prompt(chosen, server)
    assert find(prompt, "EI2AttentionControl")["kind"] == "shape"
    assert find(prompt, "EI2PromptEdit")["prompt"] == "a fox"
    caption = find_id(prompt, "PrimitiveStringMultiline")
    assert prompt[caption]["inputs"]["value"] == "a rabbit"
    readers = {node["class_type"] for node in prompt.values() if [caption, 0] in node["inputs"].values()}
    assert readers == {"CLIPTextEncode", "EI2PromptEdit"}
    find(prompt, "EI2InvertVideo")["steps"] = 2
    result = clip.keep(chosen, server, prompt, server.run(prompt))
    assert result["frames"] == 3 and result["metrics"]["frames"] == 3 and (tmp_path / "sheet.png").exists()
