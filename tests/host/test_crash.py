"""Kill -9 in the middle of a save, on a real server: the old file is whole, and the next server goes on from it."""

import time
from pathlib import Path

from ei2_modules.files import safetensors_file
from ei2_modules.inflation import weights
from ei2_modules.tuning import state as tuning_state
from tools.demo import scene
from tools.server.api_prompt import find, find_id
from tools.server.comfy_server import Server

SAVES = 2


def tuning(server, **changes) -> dict:
    """The demo's template as far as the tuning, and its weights saved; the state kept after every step."""
    template = scene.load_template(server)
    find(template, "EI2DemoClip")["frames"] = 2
    find(template, "EI2OneShotTune").update({"autosave_every": 1, "steps": 5000} | changes)
    save = {"weights": [find_id(template, "EI2OneShotTune"), 1], "file_name": "after", "folder": "output/ei2"}
    shown = ("CreateVideo", "SaveVideo", "EI2VideoMetrics", "EI2Compare", "PreviewAny")
    later = {"EI2InvertVideo", "EI2Sampler", "VAEDecode", *shown}
    kept = {i: node for i, node in template.items() if node["class_type"] not in later}
    return kept | {"save": {"class_type": "EI2SaveWeights", "inputs": save}}


def kill_in_the_middle_of_a_save(server, folder: Path) -> None:
    """After SAVES of them, as soon as a half-written file is there."""
    server.request("/prompt", {"prompt": tuning(server)})
    seen, end = set(), time.monotonic() + 120
    while time.monotonic() < end:
        seen |= {path.stat().st_mtime_ns for path in folder.glob("*.ei2state")}
        if len(seen) >= SAVES and list(folder.glob(".*.partial")):
            return server.process.kill()
    raise AssertionError(f"no save was caught in two minutes; the server says:\n{server.tail()}")


def test_killed_while_saving(tmp_path):
    states = tmp_path / "output" / "ei2" / "states"
    with Server(tmp_path) as server:
        kill_in_the_middle_of_a_save(server, states)
        server.process.wait()
    (path,) = states.glob("*.ei2state")
    safetensors_file.load(path)  # whole, by its checksum
    _, done = tuning_state.read(path)
    assert done >= SAVES
    with Server(tmp_path) as server:
        server.run(tuning(server, steps=done + 2, autosave_every=0))
        assert f"Going on at step {done} from {path.name}" in server.log.read_text(encoding="utf-8")
    (saved,) = (tmp_path / "output" / "ei2").glob("after_*.safetensors")
    assert weights.load(saved).header.run["steps"] == done + 2


def test_two_tunings_queued_one_after_another(server):
    """Each keeps a state of its own, and both are found again."""
    states = server.folder / "output" / "ei2" / "states"
    before = set(states.glob("*"))
    queued = [
        server.request("/prompt", {"prompt": tuning(server, steps=3, seed=seed)})["prompt_id"] for seed in (71, 72)
    ]
    end = time.monotonic() + 120
    while not all(server.request(f"/history/{i}") for i in queued) and time.monotonic() < end:
        time.sleep(0.2)
    assert len(set(states.glob("*")) - before) == 2
    log = server.log.read_text(encoding="utf-8")
    for seed in (71, 72):
        server.run(tuning(server, steps=3, seed=seed, learning_rate=1e-3, preview_every=seed))  # no cached answer
    assert server.log.read_text(encoding="utf-8")[len(log) :].count("Already tuned: 3 steps") == 2
