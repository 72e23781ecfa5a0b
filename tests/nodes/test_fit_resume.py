"""A fit of an atlas goes on as if it had never been stopped, and the same one is not done twice."""

import itertools
from dataclasses import replace
from types import SimpleNamespace

import comfy.model_management
import pytest
import torch

from tools.server.in_process import pack

from .atlases import rendered, watched_bar
from .mini import run

STEPS = 4
STOP = comfy.model_management.InterruptProcessingException
options = pack("ei2_modules.atlas.options")
fit_run = pack("nodes.host.atlas.fit_run")
fit_states = pack("nodes.host.atlas.fit_states")
safetensors_file = pack("ei2_modules.files.safetensors_file")


@pytest.fixture(scope="module")
def clip():
    return rendered()


@pytest.fixture(scope="module")
def flow(clip):
    with torch.inference_mode():
        return run("optical_flow.OpticalFlow", images=clip.images, method="auto", changing_light=False)[0]


@pytest.fixture(autouse=True)
def states(monkeypatch, folders):
    """The folder of states, in a temporary place; two presets of few steps."""
    monkeypatch.setitem(options.PRESETS, "preview", STEPS)
    monkeypatch.setitem(options.PRESETS, "default", STEPS + 1)
    return folders / "output" / "ei2_atlas" / "states"


@pytest.fixture(autouse=True)
def work(monkeypatch):
    """What is computed: the flow, the start, and every step."""
    done, step = [], fit_run.Fit.step
    for module, name in ((fit_run.optical_flow, "flow_of"), (fit_run, "start")):
        computed = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, name=name, computed=computed: done.append(name) or computed(*a))
    monkeypatch.setattr(fit_run.Fit, "step", lambda fit: done.append("step") or step(fit))
    return done


WHOLE = ["flow_of", "start"] + ["step"] * STEPS


def fit(clip, **inputs):
    defaults = {"images": clip.images, "mask": clip.mask, "motion": "rigid", "preset": "preview", "seed": 0}
    return run("fit_atlas.FitAtlas", **(defaults | {"max_frames": 70} | inputs))


@pytest.fixture
def no_figures(monkeypatch):
    """All but the first of the report's, which take most of the time of so small a fit."""
    monkeypatch.setattr(fit_run, "gates", lambda *given: [fit_run.flow_share(given[-1])] * 2)


BEFORE: dict[str, bytes] = {}


@pytest.fixture
def fitted_before(clip, states, work, no_figures):
    """The state that `fit(clip)` leaves: fitted once, and put into the folder of every test."""
    if not BEFORE:
        fit(clip)
        (path,) = states.iterdir()
        BEFORE[path.name] = path.read_bytes()
    states.mkdir(parents=True, exist_ok=True)
    for name, data in BEFORE.items():
        (states / name).write_bytes(data)
    work.clear()
    return states / name


@pytest.fixture(scope="module")
def uninterrupted(clip):
    """(atlas, report) of a run that finds nothing and leaves nothing."""
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(options.PRESETS, "preview", STEPS)
        patch.setattr(fit_states.FitStates, "save", lambda *a: None)
        atlas, *_, report = fit(clip, resume="new run")
        return atlas, report


def stopped(clip, monkeypatch, at, error=STOP, **inputs):
    """Run until a step is done, when the user presses cancel."""
    shown = fit_run.FitRun._show

    def show(self, fit):
        shown(self, fit)
        if fit.done == at:
            raise error

    with monkeypatch.context() as patched, pytest.raises((STOP, error)):
        patched.setattr(fit_run.FitRun, "_show", show)
        fit(clip, **inputs)


def same(one, other):
    parts = [(a.texture, a.observed, a.maps.affine, a.maps.offsets) for a in one.layers]
    theirs = [(a.texture, a.observed, a.maps.affine, a.maps.offsets) for a in other.layers]
    pairs = zip([*sum(parts, ()), *one.alphas], [*sum(theirs, ()), *other.alphas], strict=True)
    return one.clip == other.clip and all(torch.equal(a, b) for a, b in pairs)


def figures(report):
    """But for the seconds."""
    return report.partition(" s, ")[2]


@pytest.mark.parametrize("at", [1, 2, STEPS])
def test_a_stopped_fit_ends_as_an_uninterrupted_one(clip, monkeypatch, caplog, work, uninterrupted, at):
    with caplog.at_level("INFO"):
        stopped(clip, monkeypatch, at)
        work.clear()
        atlas, *_, report = fit(clip)
    assert work == ["step"] * (STEPS - at), "flow and start are kept"
    assert same(atlas, uninterrupted[0]) and figures(report) == figures(uninterrupted[1])
    assert f"Stopped at step {at} of 4. Run again to go on at step {at}. The atlas so far is kept as" in caplog.text
    assert ("Already fitted: 4 steps" if at == STEPS else f"Going on at step {at} of 4 of an earlier") in caplog.text


def test_it_may_be_stopped_again(clip, monkeypatch, work, states, uninterrupted, no_figures):
    for at in (1, 3):
        stopped(clip, monkeypatch, at)
    assert same(fit(clip)[0], uninterrupted[0]) and work == WHOLE
    assert len(list(states.iterdir())) == 1, "one fit, one file"


def test_stopping_before_anything_new_leaves_nothing_new(clip, monkeypatch, states, folders):
    stopped(clip, monkeypatch, 2)
    before = {path: path.stat().st_mtime_ns for path in folders.rglob("*")}
    with monkeypatch.context() as patched, pytest.raises(STOP):
        patched.setattr(fit_run.Fit, "step", raising(STOP))
        fit(clip)
    assert {path: path.stat().st_mtime_ns for path in folders.rglob("*")} == before


def raising(error):
    def function(*args):
        raise error

    return function


@pytest.fixture
def slow(monkeypatch):
    """Every look at the clock is a second later."""
    clock = itertools.count()
    monkeypatch.setattr(fit_states, "time", SimpleNamespace(monotonic=lambda: next(clock)))


def test_seconds_are_those_of_all_runs(clip, monkeypatch, slow, no_figures):
    """One look at the beginning, one after each step, one before a save and one after it."""
    stopped(clip, monkeypatch, 3)  # 0; 1, 2; 3
    assert "4 steps in 5 s" in fit(clip)[5]  # 0; 1; 2


def test_the_same_is_not_fitted_twice(clip, monkeypatch, caplog, work, slow):
    moves = watched_bar(monkeypatch)
    first = fit(clip)
    first_work, first_end = work.copy(), moves[-1]
    moves.clear(), work.clear()
    with caplog.at_level("INFO"):
        again = fit(clip, max_frames=4, images=clip.images.clone())
    assert first_work == WHOLE and work == []
    assert same(first[0], again[0]) and all(map(torch.equal, first[1:5], again[1:5]))
    assert first[5] == again[5] and "4 steps in 5 s" in again[5], "the report too"
    assert moves == [first_end], "a full bar with the picture"
    assert "Already fitted: 4 steps of the same clip, masks, flow and options are in 4 frames of 64x40" in caplog.text


def test_the_node_says_so(clip, monkeypatch, fitted_before):
    said = []
    monkeypatch.setattr(pack("nodes.host.progress"), "show_text", said.append)
    monkeypatch.setattr(pack("nodes.host.atlas.report"), "show_text", said.append)
    fit(clip)
    assert len(said) == 2 and all(text.startswith("Already fitted: ") for text in said) and " dB; " in said[1]


def shifted(clip):
    images = clip.images.clone()
    images[2, 5, 5, 1] += 1e-6
    return images


def box(clip, rows):
    mask = clip.mask.clone()
    mask[:, rows] = 0
    return mask


OTHERS = {
    "a frame": lambda clip, flow: {"images": shifted(clip)},
    "fewer frames": lambda clip, flow: {"images": clip.images[:3], "mask": clip.mask[:3]},
    "the mask": lambda clip, flow: {"mask": box(clip, slice(0, 20))},
    "no mask": lambda clip, flow: {"mask": None},
    "a second mask": lambda clip, flow: {"mask_2": box(clip, slice(20, 40))},
    "the seed": lambda clip, flow: {"seed": 1},
    "the motion": lambda clip, flow: {"motion": "affine"},
    "the preset": lambda clip, flow: {"preset": "default"},
    "the kind of masks": lambda clip, flow: {"masks": "rough"},
    "the lighting": lambda clip, flow: {"lighting": True},
    "a flow that is given": lambda clip, flow: {"flow": flow},
    "a new run": lambda clip, flow: {"resume": "new run"},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_anything_else_is_fitted(clip, flow, fitted_before, work, other):
    inputs = other(clip, flow)
    fit(clip, **inputs)
    assert work.count("step") == STEPS + ("preset" in inputs) and "start" in work


FLOWS = {
    "the same again": (lambda flow: replace(flow, forward=flow.forward.clone()), 0),
    "other numbers": (lambda flow: replace(flow, forward=flow.forward + 1e-3), STEPS),
    "other pixels that agree": (lambda flow: replace(flow, backward_agrees=flow.backward_agrees & False), STEPS),
    "another method": (lambda flow: replace(flow, method="mine"), STEPS),
    "none": (lambda flow: None, STEPS),
}


@pytest.mark.parametrize(("other", "steps"), FLOWS.values(), ids=FLOWS)
def test_a_flow_that_is_given_is_known_by_its_contents(clip, flow, work, no_figures, other, steps):
    fit(clip, flow=flow)
    work.clear()
    *_, report = fit(clip, flow=other(flow))
    assert work.count("step") == steps and ("by mine" in report) is (other(flow) or flow).method.startswith("mine")


def test_another_way_of_estimating_flow_is_another_fit(clip, monkeypatch, tmp_path):
    """Weights of RAFT that were put there meanwhile, and others under the same name."""
    flows, keys = pack("nodes.host.optical_flow"), []
    monkeypatch.setattr(flows, "LEAST_RAFT", 8)
    job = pack("nodes.host.atlas.fit_job").FitJob.of(clip.images, {}, None, options.FitOptions(), 70)
    for weights in (None, b"small", b"large", b"small"):
        if weights:
            (tmp_path / "raft.pth").write_bytes(weights)
        monkeypatch.setattr(flows, "raft_file", lambda there=bool(weights): tmp_path / "raft.pth" if there else None)
        keys.append(job.key())
    assert len(set(keys)) == 3 and keys[1] == keys[3]


FAULTS = {
    "out of memory": (comfy.model_management.OOM_EXCEPTION(), pack("ei2_modules.errors").EI2Error),
    "a crash": (RuntimeError("broke"), RuntimeError),
}


@pytest.mark.parametrize(("error", "raised"), FAULTS.values(), ids=FAULTS)
def test_a_step_that_fails_is_taken_again(clip, monkeypatch, work, uninterrupted, no_figures, error, raised):
    """As it would have been: the random numbers that it drew are drawn once more."""
    losses, calls = fit_run.Fit._flow_losses, []

    def failing(self, *args):
        found = losses(self, *args)
        calls.append(0)
        if len(calls) == 3:
            raise error
        return found

    with monkeypatch.context() as patched, pytest.raises(raised):
        patched.setattr(fit_run.Fit, "_flow_losses", failing)
        fit(clip)
    work.clear()
    assert same(fit(clip)[0], uninterrupted[0]) and work == ["step"] * 2


def test_a_step_that_breaks_off_while_it_moves_is_not_kept(clip, monkeypatch, work, uninterrupted, no_figures):
    """Nor is the step before it any more; what was saved at the first stays."""
    monkeypatch.setattr(fit_states, "WAIT", 0)
    monkeypatch.setattr(fit_states, "SHARE", 1e9)
    rows = pack("ei2_modules.atlas.adam").Rows
    move, moves = rows.step, []

    def moving(self, *args):
        moves.append(0)
        if len(moves) == 25:  # in the third step, of ten parameters each
            raise RuntimeError("broke")
        move(self, *args)

    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="broke"):
        patched.setattr(rows, "step", moving)
        fit(clip)
    work.clear()
    assert same(fit(clip)[0], uninterrupted[0]) and work == ["step"] * 3


@pytest.mark.parametrize(("wait", "share", "steps"), [(0, 0, 1), (1000, 0, 4), (0, 1e9, 3)])
def test_it_is_saved_now_and_then(clip, monkeypatch, work, no_figures, wait, share, steps):
    """Where the process dies at step 3: by time, and not when saving costs too much of it."""
    monkeypatch.setattr(fit_states, "WAIT", wait)
    monkeypatch.setattr(fit_states, "SHARE", share)
    with monkeypatch.context() as patched:
        patched.setattr(fit_run.FitRun, "_stopped", lambda self: None)
        stopped(clip, monkeypatch, 4, seed=3)
    work.clear()
    fit(clip, seed=3)
    assert work.count("step") == steps


def flipped(path):
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def of_version(number):
    return lambda path: path.write_bytes(path.read_bytes().replace(rb"\"format\": 2", rb"\"format\": %d" % number, 1))


def of_a_tuning(path):
    safetensors_file.save(path, {"x": torch.zeros(1)}, {"ei2_state": "{}"})


DAMAGE = {
    "one bit flipped": (flipped, "has changed since it was written"),
    "cut in half": (lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]), "not a readable"),
    "empty": (lambda path: path.write_bytes(b""), "not a readable"),
    "of a newer version": (of_version(3), "state of format 3; this version goes on from 2"),
    "of 0.2.0": (of_version(1), "state of format 1; this version goes on from 2"),
    "of another kind": (of_a_tuning, "holds no state of a fit"),
}


@pytest.mark.parametrize(("damage", "words"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_state_is_passed_over(clip, fitted_before, caplog, work, damage, words):
    damage(fitted_before)
    fit(clip)
    assert work == WHOLE and words in caplog.text


def test_a_full_disk_stops_nothing_and_does_not_hide_that_it_was_stopped(
    clip, monkeypatch, caplog, states, work, no_figures
):
    def full(*args):
        raise OSError("No space left on device")

    monkeypatch.setattr(safetensors_file, "save_file", full)
    with caplog.at_level("INFO"):
        stopped(clip, monkeypatch, 2)
    assert "The atlas so far is kept" not in caplog.text and "No space left" in caplog.text
    assert "state of step 2 could not be kept" in caplog.text and "No space left" in caplog.text
    assert "Run again" not in caplog.text and list(states.iterdir()) == []
    work.clear()
    fit(clip)
    assert work == WHOLE and "state of step 4 could not be kept" in caplog.text


def test_only_the_newest_states_stay(clip, states, work, no_figures):
    for seed in range(fit_states.KEEP + 2):
        fit(clip, seed=seed, mask=None, motion="affine")
    assert len(list(states.iterdir())) == fit_states.KEEP
    work.clear()
    fit(clip, seed=seed, mask=None, motion="affine")
    assert work == [], "the newest is still there"


def test_states_are_not_listed_as_atlases(fitted_before, states):
    assert pack("nodes.host.atlas.folder").list_files() == [] and list(states.iterdir()) == [fitted_before]
