"""tools/many_clips.py with real servers on loopback: one is killed in the middle of a job, then the run itself is."""

import csv
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tools import ROOT
from tools.demo import video_files
from tools.many import command, example, prompts
from tools.many.jobs import Job
from tools.server.api_prompt import find, find_id
from tools.server.comfy_server import Server

from .waiting import wait_until

FRAMES = 2
PATIENCE = 400  # seconds: on a busy machine a minute becomes five
BAD_WORD = "a mauve circle"
SETTINGS = {"EI2OneShotTune.steps": 3, "EI2InvertVideo.steps": 4, "EI2OneShotTune.resume": "new run"}


@pytest.fixture
def other(tmp_path):
    """A second server, to be killed."""
    with Server(tmp_path / "other") as running:
        yield running


def folder_of_jobs(folder: Path, prompts: list[str], **settings) -> Path:
    """The example's first clip under several prompts, which name the jobs."""
    if not folder.exists():
        example.write(folder, FRAMES)
    row = {"clip": "red_circle.mp4", "caption": "a red circle", **SETTINGS, **settings}
    with (folder / "jobs.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, [*row, "prompt", "name"])
        table.writeheader()
        table.writerows({**row, "prompt": text, "name": text} for text in prompts)
    return folder


def start(folder: Path, *servers) -> subprocess.Popen:
    program = [sys.executable, str(ROOT / "tools" / "many_clips.py"), str(folder)]
    return subprocess.Popen(program + [part for server in servers for part in ("--server", server.url)])


def run(folder: Path, *servers) -> int:
    return start(folder, *servers).wait(PATIENCE)


def is_running(server) -> bool:
    return bool(server.request("/queue")["queue_running"])


def ended(server, names: list[str]) -> Counter:
    """How often a server ended the jobs of these names, with its word: success or error."""
    entries = server.request("/history").values()
    return Counter((name, e["status"]["status_str"]) for e in entries for name in names if name in texts_of(e))


def texts_of(entry: dict) -> list:
    """All that a prompt has encoded. Other tests leave prompts of other words on the same server."""
    nodes = entry["prompt"][2].values()
    return [node["inputs"]["prompt"] for node in nodes if node["class_type"] == "EI2PromptEdit"]


def results(folder: Path) -> dict[str, dict]:
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in folder.glob("results/*/job.json")}


def test_a_job_in_the_template(server, tmp_path):
    job = Job("stoat", tmp_path / "stoat.mp4", "a stoat", "a mink", {"EI2OneShotTune.steps": "7"})
    prompt = prompts.make(prompts.load(command.TEMPLATE), server.request("/object_info"), job, "here.mp4")
    assert find(prompt, "EI2LoadClip")["file"] == "here.mp4"
    assert find(prompt, "CLIPTextEncode", EI2OneShotTune="positive")["text"] == "a stoat"
    assert find(prompt, "EI2PromptEdit") | {"caption": "a stoat", "prompt": "a mink"} == find(prompt, "EI2PromptEdit")
    assert find(prompt, "EI2OneShotTune")["steps"] == 7
    assert find(prompt, "EI2SaveWeights")["file_name"] == "stoat"


def test_a_job_in_a_workflow_with_prompt_edit(server, tmp_path):
    job = Job("star", tmp_path / "star.mp4", "a red circle", "a red star", {})
    (tmp_path / "workflow.json").write_text(json.dumps(example.workflow()), encoding="utf-8")
    prompt = prompts.make(prompts.load(tmp_path / "workflow.json"), server.request("/object_info"), job, "here.mp4")
    assert find(prompt, "LoadVideo")["file"] == "here.mp4"
    assert (find(prompt, "EI2PromptEdit")["caption"], find(prompt, "EI2PromptEdit")["prompt"]) == (
        job.caption,
        job.prompt,
    )
    assert find(prompt, "CLIPTextEncode", EI2OneShotTune="positive")["text"] == job.caption
    find(prompt, "EI2OneShotTune")["positive"] = [find_id(prompt, "EI2PromptEdit"), 0]  # as workflows had it before
    assert find(prompts.make(prompt, {}, job, "here.mp4"), "EI2PromptEdit")["caption"] == job.caption


def test_a_server_killed_in_the_middle(server, other, tmp_path):
    good = [f"a {colour} circle" for colour in ("green", "yellow", "white", "black")]
    folder = folder_of_jobs(tmp_path / "jobs", [good[0], BAD_WORD, *good[1:]])
    process = start(folder, server, other)
    wait_until(lambda: is_running(other), PATIENCE)
    other.process.kill()
    assert process.wait(PATIENCE) == 1  # for the bad word

    found = results(folder)
    assert sorted(found) == sorted(good)
    for name in good:
        assert len(video_files.read(folder / "results" / name / f"{name}.mp4")) == FRAMES
    here = Counter((name, "success") for name in good if found[name]["server"] == server.url)
    assert ended(server, good) == here
    assert len(here) >= len(good) - 1  # the other one was killed in its first job, or in its second after the bad word

    folder_of_jobs(folder, [*good, "a red star"])  # the bad row put right
    assert run(folder, server) == 0
    assert ended(server, [*good, "a red star"]) == here + Counter([("a red star", "success")])
    assert run(folder, server) == 0  # nothing is left to do
    assert ended(server, [*good, "a red star"]).total() == here.total() + 1


def test_the_run_itself_stopped_and_killed(server, tmp_path):
    name = "a big red star"
    folder = folder_of_jobs(tmp_path / "jobs", [name], **{"EI2OneShotTune.steps": 60})
    process = start(folder, server)
    wait_until(lambda: is_running(server), PATIENCE)
    assert run(folder, server) == 2  # a second run at the same time
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE) == 130
    wait_until(lambda: not is_running(server), PATIENCE)
    assert ended(server, [name]) == {(name, "error"): 1}  # interrupted

    process = start(folder, server)
    wait_until(lambda: is_running(server), PATIENCE)
    os.kill(process.pid, signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)
    process.wait()
    assert not results(folder)
    assert run(folder, server) == 0  # waits for the prompt that still runs
    assert ended(server, [name]) == {(name, "error"): 1, (name, "success"): 1}
    assert list(results(folder)) == [name]
