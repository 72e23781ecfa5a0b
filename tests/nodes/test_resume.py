"""A tuning goes on as if it had never been stopped, and the same one is not done twice."""

import json
from contextlib import suppress

import comfy.model_management
import pytest
import torch
from comfy.controlnet import ControlBase
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

from ..same import same
from .mini import caption, clip, inflate, model, pack, tune
from .other_nodes import run_node

AUTO = {"resume": "auto", "autosave_every": 2}
STOP = comfy.model_management.InterruptProcessingException


@pytest.fixture(autouse=True)
def states(folders):
    """The folder of states, in a temporary place."""
    return folders / "output" / "ei2" / "states"


def stop_at(monkeypatch, number):
    """The user presses cancel after this step."""
    progress = pack("nodes.host.tuning.preview").TuningProgress

    def after_step(self, done, *pictures):
        if done == number:
            raise STOP

    monkeypatch.setattr(progress, "after_step", after_step)


def forbid_steps(monkeypatch):
    guider = pack("nodes.host.tuning.guider").TuningGuider
    monkeypatch.setattr(guider, "denoise", lambda *args: pytest.fail("this has been tuned already"))


@pytest.fixture
def trained(monkeypatch):
    """A list that grows by one with every training step."""
    guider, steps = pack("nodes.host.tuning.guider").TuningGuider, []
    original = guider.denoise
    monkeypatch.setattr(guider, "denoise", lambda *args: steps.append(1) or original(*args))
    return steps


LEFT_BEHIND: dict[str, bytes] = {}


@pytest.fixture
def tuned_before(states):
    """The state that `tune(inflate(model()), **AUTO)` leaves: tuned once, and put into the folder of every test."""
    if not LEFT_BEHIND:
        tune(inflate(model()), **AUTO)
        LEFT_BEHIND[the_state(states).name] = the_state(states).read_bytes()
    states.mkdir(parents=True, exist_ok=True)
    for name, data in LEFT_BEHIND.items():
        (states / name).write_bytes(data)
    return the_state(states)


@pytest.mark.parametrize("mode", ["EI²", "Tune-A-Video", "dense"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_stopped_run_ends_as_an_uninterrupted_one(monkeypatch, trained, mode, precision):
    options = {"mode": mode}
    _, whole, losses = tune(inflate(model(), **options), steps=6, precision=precision)
    with monkeypatch.context() as patched, pytest.raises(STOP):
        stop_at(patched, 3)
        tune(inflate(model(), **options), steps=6, precision=precision, **AUTO)
    trained.clear()
    _, resumed, its_losses = tune(inflate(model(), **options), steps=6, precision=precision, **AUTO)
    assert len(trained) == 3
    assert same(resumed, whole) and its_losses == losses
    assert resumed.header.run["steps"] == 6


@pytest.mark.parametrize("at", [1, 5, 6])
def test_stopping_at_the_first_the_middle_and_the_last_step(monkeypatch, trained, at):
    with monkeypatch.context() as patched, pytest.raises(STOP):
        stop_at(patched, at)
        tune(inflate(model()), steps=6, **AUTO)
    trained.clear()
    _, resumed, _ = tune(inflate(model()), steps=6, **AUTO)
    assert len(trained) == 6 - at
    assert same(resumed, tune(inflate(model()), steps=6)[1])


def test_stopping_before_the_first_step_leaves_nothing(monkeypatch, states):
    guider = pack("nodes.host.tuning.guider").TuningGuider

    def interrupted(*args):
        raise STOP

    monkeypatch.setattr(guider, "denoise", interrupted)
    with pytest.raises(STOP):
        tune(inflate(model()), **AUTO)
    assert not states.parent.exists()


def test_a_folder_that_cannot_be_written_to_does_not_stop_the_tuning(monkeypatch, caplog, folders):
    folders.joinpath("output").mkdir()
    folders.joinpath("output", "ei2").write_text("a file in the way")
    assert len(tune(inflate(model()), steps=3, **AUTO)[2]["loss"]) == 3
    assert "could not be kept" in caplog.text


def test_tuning_further_is_tuning_longer(trained, states):
    tune(inflate(model()), steps=3, **AUTO)
    trained.clear()
    _, further, losses = tune(inflate(model()), steps=5, **AUTO)
    assert len(trained) == 2 and len(losses["loss"]) == 5
    assert same(further, tune(inflate(model()), steps=5)[1])
    assert sorted(path.name[:18] for path in states.iterdir()) == ["tuning, 3 steps, 2", "tuning, 5 steps, 2"]


NAMES = [  # caption, how its states begin
    ("a red circle moving on a blue background, slowly", "a red circle moving on a blue background, 9 steps, "),
    ("L'été: 犬/猫?", "L été 犬 猫, 9 steps, "),
    ("e\u0301te\u0301", "\u00e9t\u00e9, 9 steps, "),  # as macOS writes it
    ("x" * 90, f"{'x' * 40}, 9 steps, "),
    ("", "tuning, 9 steps, "),
    (None, "tuning, 9 steps, "),
]


@pytest.mark.parametrize("caption, begins", NAMES)
def test_a_state_is_found_by_its_name(caption, begins):
    found = pack("nodes.host.resume.states").new_path(caption, 9)
    assert found.name.startswith(begins) and len(found.name.encode()) < 200


def test_a_name_without_steps_is_for_any_number(states):
    """As those of earlier versions."""
    tune(inflate(model()), steps=3, **AUTO)
    (path,) = states.iterdir()
    path.rename(states / "tuning 2026-01-01 10-00-00.ei2state")
    tune(inflate(model()), steps=5, **AUTO)
    assert [path.name for path in states.iterdir()] == ["tuning 2026-01-01 10-00-00.ei2state"]


def test_the_same_is_not_tuned_twice(monkeypatch, caplog):
    with caplog.at_level("INFO"):
        _, first, losses = tune(inflate(model()), steps=3, **AUTO)
        forbid_steps(monkeypatch)
        tuned, again, its_losses = tune(inflate(model()), steps=3, **AUTO)
    assert same(first, again) and losses == its_losses
    assert "Already tuned: 3 steps" in caplog.text
    assert tuned.get_attachment("ei2").weights is again


def with_lora(strength=1.0):
    m = model().clone()
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
    m.add_patches({key: ("diff", (torch.full_like(m.get_model_object(key), 0.01),))}, strength)
    return inflate(m)


def hooked():
    m = inflate(model())
    m.set_model_attn2_patch(lambda q, k, v, options: (q, k, v))
    return m


def of_another_pack():
    """A caption that cannot be compared."""

    class ControlOfAnotherPack(ControlBase):
        def get_control(self, *args):
            return {}

    return [[caption()[0][0], {"control": ControlOfAnotherPack()}]]


OTHERS = {
    "the clip": lambda: tune(inflate(model()), clip(seed=3), **AUTO),
    "its size": lambda: tune(inflate(model()), clip(width=16), **AUTO),
    "the caption": lambda: tune(inflate(model()), positive=caption(9), **AUTO),
    "the seed": lambda: tune(inflate(model()), seed=34, **AUTO),
    "the learning rate": lambda: tune(inflate(model()), learning_rate=2e-3, **AUTO),
    "the precision": lambda: tune(inflate(model()), precision="bf16", **AUTO),
    "the checkpoint": lambda: tune(inflate(model(seed=4)), **AUTO),
    "the prediction": lambda: tune(inflate(model("v")), **AUTO),
    "the mode": lambda: tune(inflate(model(), "Tune-A-Video"), **AUTO),
    "the ratio": lambda: tune(inflate(model(), coarse_ratio=4), **AUTO),
    "the start of STAM": lambda: tune(inflate(model(), seed=1), **AUTO),
    "a LoRA": lambda: tune(with_lora(), **AUTO),
    "the noise schedule": lambda: tune(inflate(run_node(ModelSamplingDiscrete, model(), "eps", True)), **AUTO),
    "weights to start from": lambda: tune(inflate(model()), weights=tune(inflate(model()))[1], **AUTO),
    "fewer steps": lambda: tune(inflate(model()), steps=1, **AUTO),
    "another node's hook": lambda: tune(hooked(), **AUTO),
    "a new run": lambda: tune(inflate(model()), resume="new run"),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_anything_else_is_tuned(tuned_before, trained, other):
    other()
    assert trained


@pytest.mark.parametrize("strength, reused", [(1.0, True), (0.5, False)])
def test_a_lora_is_known_by_its_contents(trained, strength, reused):
    tune(with_lora(), **AUTO)
    trained.clear()
    tune(with_lora(strength), **AUTO)
    assert bool(trained) != reused


def the_state(states):
    (path,) = states.iterdir()
    return path


UNSEEN = {
    "another node's hook": (hooked, caption),
    "a ControlNet of another pack": (lambda: inflate(model()), of_another_pack),
}
CHOSEN = {"alike": (lambda: inflate(model()), caption), **UNSEEN}


@pytest.mark.parametrize("make, text", UNSEEN.values(), ids=UNSEEN)
def test_what_cannot_be_compared_is_tuned_anew(make, text, trained):
    tune(make(), positive=text(), **AUTO)
    trained.clear()
    tune(make(), positive=text(), **AUTO)
    assert trained


@pytest.mark.parametrize("make, text", CHOSEN.values(), ids=CHOSEN)
def test_a_chosen_state_is_gone_on_from(make, text, trained, states):
    """Also where only the user can say that it is the same tuning."""
    tune(make(), positive=text(), steps=2, **AUTO)
    name = the_state(states).name
    trained.clear()
    _, further, _ = tune(make(), positive=text(), steps=3, resume=name)
    assert len(trained) == 1
    assert same(further, tune(make(), positive=text(), steps=3)[1])


REFUSED = {
    "another clip": (lambda name: tune(inflate(model()), clip(seed=3), resume=name), "differ: the clip. Set them"),
    "another caption": (lambda name: tune(inflate(model()), positive=caption(9), resume=name), "the caption"),
    "another model": (lambda name: tune(inflate(model(seed=4)), resume=name), "the checkpoint"),
    "another rate": (lambda name: tune(inflate(model()), learning_rate=0.5, resume=name), r"0.001 there, 0.5 here"),
    "fewer steps": (lambda name: tune(inflate(model()), steps=1, resume=name), "already at step 2, beyond the 1"),
    "no such file": (lambda name: tune(inflate(model()), resume="none.ei2state"), "Press R"),
    "outside the folder": (lambda name: tune(inflate(model()), resume="../" + name), "not in output/ei2/states"),
}


@pytest.mark.parametrize("attempt, words", REFUSED.values(), ids=REFUSED)
def test_a_state_of_another_tuning_is_refused(tuned_before, attempt, words):
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match=words):
        attempt(tuned_before.name)


def half(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path):
    """From a version to come: a header of another format."""
    data = path.read_bytes()
    path.write_bytes(data.replace(rb"\"format\": 1", rb"\"format\": 2", 1))


def empty(path):
    path.write_bytes(b"")


def foreign(path):
    save = pack("ei2_modules.files.safetensors_file").save
    save(path, {"x": torch.zeros(1)}, {"a": json.dumps({})})


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "one bit flipped": (flipped, "has changed since it was written"),
    "cut in half": (half, "not a readable"),
    "empty": (empty, "not a readable"),
    "of a newer version": (newer, "state of format 2; this version goes on from 1"),
    "of another kind": (foreign, "holds no state of a tuning"),
}


@pytest.mark.parametrize("damage, words", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_refused_by_name_and_passed_over_by_auto(tuned_before, caplog, trained, damage, words):
    path = tuned_before
    damage(path)
    with pytest.raises(pack("ei2_modules.errors").WeightsError, match=words):
        tune(inflate(model()), resume=path.name)
    tune(inflate(model()), resume="auto")
    assert len(trained) == 2 and words in caplog.text


def test_refused_on_the_way_nothing_is_kept_twice(monkeypatch, folders):
    """A resumed run that fails before it learns anything leaves no copy of what was there."""
    tune(inflate(model()), steps=2, **AUTO)
    monkeypatch.setattr(
        pack("nodes.host.tuning.guider").TuningGuider, "denoise", lambda *args: (_ for _ in ()).throw(STOP)
    )
    with pytest.raises(STOP):
        tune(inflate(model()), steps=4, **AUTO)
    assert list((folders / "output" / "ei2").glob("unfinished_*")) == []


def test_a_full_disk_does_not_stop_the_tuning(monkeypatch, caplog, states):
    files = pack("ei2_modules.files.safetensors_file")
    monkeypatch.setattr(files, "save_file", lambda *a: (_ for _ in ()).throw(OSError("No space left on device")))
    assert len(tune(inflate(model()), steps=4, **AUTO)[2]["loss"]) == 4
    assert "state of step 2 could not be kept" in caplog.text and "No space left" in caplog.text
    assert list(states.iterdir()) == []


def test_only_the_newest_states_stay(states):
    keep = pack("nodes.host.resume.states").KEEP
    for seed in range(keep + 2):
        tune(inflate(model()), steps=1, seed=seed, **AUTO)
    assert len(list(states.iterdir())) == keep
    newest = keep + 1
    before = len(list(states.iterdir()))
    tune(inflate(model()), steps=1, seed=newest, **AUTO)
    assert len(list(states.iterdir())) == before, "the newest is still there and used again"


def test_without_autosave_a_state_is_only_kept_when_stopped(monkeypatch, states):
    tune(inflate(model()))
    assert not states.exists()
    stop_at(monkeypatch, 1)
    with suppress(STOP):
        tune(inflate(model()))
    assert len(list(states.iterdir())) == 1


def test_states_are_not_listed_as_weights(folders):
    tune(inflate(model()), **AUTO)
    assert pack("nodes.host.files.weights_folder").list_files() == []
    assert pack("nodes.host.resume.states").list_files() != []
