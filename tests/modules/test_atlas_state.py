"""The file a fit goes on from: nothing is lost in it, and nothing damaged is taken."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from benchmarks.atlas.scenes import MOTIONS, Scene, boxes
from ei2_modules.atlas import state
from ei2_modules.atlas.adam import Rows
from ei2_modules.atlas.fit import Fit
from ei2_modules.atlas.options import FitOptions
from ei2_modules.atlas.start import start
from ei2_modules.errors import WeightsError
from ei2_modules.files import safetensors_file
from ei2_modules.motion.flow import flow_of

from .mutated import mutated

STEPS = 4
SCENE = Scene(replace(MOTIONS["slide"], camera=(0.06, 0.02, 0.02, 2, 0), thing=(0.1, 0.03, 8, 0.05)), 5, (32, 40), 1)
OPTIONS = FitOptions(steps=STEPS)
WAYS = {  # options, number of masks, whether the flow is given
    "rough": (OPTIONS, 1, False),
    "tight, flow given": (replace(OPTIONS, masks="tight"), 1, True),
    "one layer": (OPTIONS, 0, False),
    "affine, light": (replace(OPTIONS, motion="affine", lighting=True), 1, False),
    "two objects": (replace(OPTIONS, motion="non-rigid"), 2, False),
}
STARTS = {}  # a fit leaves its start as it is


@pytest.fixture(scope="module")
def film():
    """(frames, masks, flow)."""
    frames, alpha = SCENE.render()
    return frames, (boxes(alpha, 3), boxes(alpha, 1)), flow_of(frames)


@pytest.fixture(scope="module")
def kept(tmp_path_factory, film):
    path = tmp_path_factory.mktemp("kept") / "s"
    state.save(path, advanced(fresh(film), 2), "key", 0.0, True)
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(film):
    return advanced(fresh(film))


def fresh(film, options=OPTIONS, masks=1):
    frames, flow, given = film[0], film[2], film[1][:masks]
    begun = STARTS.get((options, masks)) or STARTS.setdefault((options, masks), start(frames, given, flow, options))
    return Fit(frames, given, flow, begun, options)


def advanced(fit, until=STEPS):
    while fit.done < until:
        fit.step()
    return fit


def again(path, film, options=OPTIONS, masks=1, flow=None):
    return state.restore(path, film[0], film[1][:masks], flow, options)


def numbers(fit):
    """All that is moved, remembered or drawn."""
    parts = {f"{name} {part}": getattr(rows, part) for name, rows in fit.rows.items() for part in state.PARTS}
    return parts | {"generator": fit.generator.get_state(), "done": torch.tensor(fit.done)}


def unlike(fit, other):
    ours, theirs = numbers(fit), numbers(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


@pytest.mark.parametrize("at", [1, 3])
@pytest.mark.parametrize(("options", "masks", "given"), WAYS.values(), ids=WAYS)
def test_through_a_file_and_on_is_as_if_never_stopped(tmp_path, film, options, masks, given, at):
    whole = advanced(fresh(film, options, masks))
    state.save(tmp_path / "s", advanced(fresh(film, options, masks), at), "key", 12.5, not given)
    resumed, seconds = again(tmp_path / "s", film, options, masks, film[2] if given else None)
    assert (resumed.done, resumed.begun.tight, seconds) == (at, whole.begun.tight, 12.5)
    assert unlike(advanced(resumed), whole) == []


@pytest.mark.parametrize(("options", "masks", "given"), WAYS.values(), ids=WAYS)
def test_a_finished_one_gives_the_same_atlas(tmp_path, film, options, masks, given):
    """Of what Adam remembers nothing is kept."""
    whole = advanced(fresh(film, options, masks))
    state.save(tmp_path / "s", whole, "key", 0.0, True)
    assert not [name for name in safetensors_file.load(tmp_path / "s")[0] if name.startswith(("first", "second"))]
    found, same = (fit.atlas() for fit in (again(tmp_path / "s", film, options, masks)[0], whole))
    for ours, theirs in zip(found.layers, same.layers, strict=True):
        assert torch.equal(ours.texture, theirs.texture) and torch.equal(ours.observed, theirs.observed)
        assert torch.equal(ours.maps.affine, theirs.maps.affine) and ours.box == theirs.box
    assert len(found.alphas) == masks and all(map(torch.equal, found.alphas, same.alphas))


@pytest.mark.parametrize(
    "part", ["first of affine 0", "second of texture 1", "seen of alpha 0 2", "generator", "start texture 0",
             "start cover 1", "flow forward"]
)  # fmt: skip
def test_nothing_may_be_left_behind(tmp_path, film, kept, whole, part):
    """Each part of the file matters: with other numbers the next steps differ."""
    (tmp_path / "s").write_bytes(kept)
    tensors, metadata = safetensors_file.load(tmp_path / "s")
    other = torch.Generator().manual_seed(9).get_state() if part == "generator" else tensors[part] + 1
    plain = {name: text for name, text in metadata.items() if name != safetensors_file.CHECKSUM}
    safetensors_file.save(tmp_path / "s", tensors | {part: other}, plain)
    assert unlike(advanced(again(tmp_path / "s", film)[0]), whole)


def test_the_head_is_read_without_the_tensors(tmp_path, kept):
    (tmp_path / "s").write_bytes(kept)
    assert state.read(tmp_path / "s") == ("key", 2)


def test_a_step_that_fails_leaves_the_fit_between_two_steps(tmp_path, film, whole, monkeypatch):
    """It has drawn random numbers already."""
    fit = advanced(fresh(film), 2)
    with monkeypatch.context() as patched, pytest.raises(RuntimeError, match="broke"):
        patched.setattr(Fit, "_value", broken)
        fit.step()
    assert (fit.done, fit.moving) == (2, False)
    state.save(tmp_path / "s", fit, "key", 0.0, True)
    assert unlike(advanced(again(tmp_path / "s", film)[0]), whole) == []


def broken(*args):
    raise RuntimeError("broke")


def test_a_step_that_breaks_off_while_it_moves_is_known(film, monkeypatch):
    fit, moves, move = fresh(film), [], Rows.step
    monkeypatch.setattr(Rows, "step", lambda *a: broken() if len(moves) == 2 else moves.append(move(*a)))
    with pytest.raises(RuntimeError, match="broke"):
        fit.step()
    assert fit.moving


def test_a_state_of_another_shape_is_refused(tmp_path, film, kept):
    """Also one that would be stretched to this one's."""
    path = tmp_path / "s"
    path.write_bytes(kept)
    tensors, metadata = safetensors_file.load(path)
    plain = {name: text for name, text in metadata.items() if name != safetensors_file.CHECKSUM}
    safetensors_file.save(path, tensors | {"first of affine 0": tensors["first of affine 0"][:1]}, plain)
    with pytest.raises(WeightsError, match=r"cannot be gone on from \(a part is \(1, 2, 3\) and not \(5, 2, 3\)\)"):
        again(path, film)


def test_memory_that_runs_out_is_not_taken_for_damage(tmp_path, film, kept, monkeypatch):
    (tmp_path / "s").write_bytes(kept)
    error = torch.cuda.OutOfMemoryError("out of memory")
    monkeypatch.setattr(state, "_put", lambda *a: (_ for _ in ()).throw(error))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        again(tmp_path / "s", film)


@pytest.mark.parametrize("number", range(12))
def test_a_mutated_state_is_refused(tmp_path, film, kept, number):
    path = tmp_path / "s"
    path.write_bytes(mutated(kept, number))
    with pytest.raises(WeightsError):
        again(path, film)


def test_a_state_without_its_checksum_is_refused(tmp_path, film, kept):
    path = tmp_path / "s"
    path.write_bytes(kept)
    tensors, metadata = safetensors_file.load(path)
    save_file(tensors, path, {name: text for name, text in metadata.items() if name != safetensors_file.CHECKSUM})
    for read in (state.read, lambda path: again(path, film)):
        with pytest.raises(WeightsError, match="is damaged"):
            read(path)
