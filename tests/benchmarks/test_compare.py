"""Layered edits beside EI²: every method gives every figure, the truth is perfect, a refused clip is said to be so."""

from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch

from benchmarks.atlas import compare
from benchmarks.atlas.layered import LAYERED, slip
from ei2_modules.atlas.atlas import Atlas
from ei2_modules.atlas.maps import Maps
from ei2_modules.demo import vocabulary

VALUES = Namespace(preset="preview", edits=["colour"], seeds=[0], steps=2, tuning=1, ddim_steps=2)
CASES = [compare.case(*parts) for parts in compare.CLIPS]


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path):
    import folder_paths

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    with torch.inference_mode():
        yield
    folder_paths.set_output_directory(before)


def test_every_method_gives_every_figure():
    rows, said = compare.rows_of(CASES[4], compare.editor(), VALUES)
    found = {r["method"]: r for r in rows}
    video = [name for names in compare.VIDEO.values() for name in names]
    assert list(found) == [*LAYERED, "truth", *video]
    assert all(set(compare.COLUMNS) < set(r) and r["mae"] is not None for r in rows)
    assert "slips" in said
    assert {found[name]["outside_mae"] for name in LAYERED} == {0.0}  # the clip's own pixels
    assert all(found[name]["mae"] > 0 for name in (*LAYERED, *video))
    apart = [name for name in LAYERED if name != "jointly by EI²"]
    assert len({found[name]["mae"] for name in apart}) == len(apart), "two methods are the same edit"


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_the_truth_is_perfect_and_its_words_are_known(one):
    for kind in compare.KINDS:
        found = compare.of_truth(one, kind)
        assert found["done"] == 1 and found["mae"] == found["outside_mae"] == 0 and found["centroid_px"] < 0.5
        prompt = compare.on_black(one.edits[kind])
        assert "moving" not in prompt and prompt.endswith("on a black background")
        vocabulary.batch([prompt, one.prompt(kind)])


def test_a_refused_clip_stays_in_the_table_and_out_of_the_means(monkeypatch):
    monkeypatch.setattr(compare, "VIDEO", {})
    monkeypatch.setattr(compare.pack("nodes.host.atlas.fit_run"), "REFUSED", 1.1)
    rows, said = compare.rows_of(CASES[-1], compare.editor(), VALUES)
    assert "the fit refuses it: Flow agrees" in said
    assert {r["method"] for r in rows if r["mae"] is None} == set(LAYERED)
    other = [r | {"clip": "other", "mae": 3.0} for r in rows]
    means = {(r["clip"], r["method"]): r for r in compare.means(rows + other)}
    assert means["all", "truth"]["mae"] == 3 and means["refused", "truth"]["mae"] == 0
    assert means["refused", LAYERED[0]]["mae"] is None


def test_slip_is_what_the_maps_leave_of_the_motion():
    """Maps that stand still leave all of it, those that follow none."""
    clip = CASES[0].clip
    still = torch.eye(2, 3).expand(len(clip), 2, 3).clone()
    follows = still.clone()
    for t, scene in enumerate(clip):
        follows[t, :, 2] = -2 * torch.tensor([scene.things[0].x, scene.things[0].y])
    places = 64 * torch.tensor([[scene.things[0].x, scene.things[0].y] for scene in clip])
    motion = (places - places[len(clip) // 2]).norm(dim=1).mean().item()
    assert slip(moved_by(still), clip) == pytest.approx(motion, rel=1e-4)
    assert slip(moved_by(follows), clip) == pytest.approx(0, abs=1e-4)


def moved_by(affine):
    return Atlas((64, 64), (SimpleNamespace(maps=Maps(affine)),), ())
