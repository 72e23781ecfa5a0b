"""The quality benchmark measures what it says: the true clip is perfect, and every fault shows in its own figure."""

import math

import pytest
import torch

from benchmarks.quality import report
from benchmarks.quality.cases import (
    ABLATED,
    BUDGETED,
    BY_KIND,
    CONTROLLED,
    KIND_OF,
    KINDS,
    MAIN,
    METHODS,
    cases,
    choice_cases,
)  # fmt: skip
from benchmarks.quality.measures import Truth, covariate_shift, measure
from ei2_modules.attention.control.options import KINDS as KINDS_OF_CONTROL
from ei2_modules.config import InflateOptions
from ei2_modules.demo import scenes, vocabulary

CASES = {case.name: case for case in cases()}
SLIDE = next(iter(CASES.values()))


@pytest.mark.parametrize("name", CASES)
def test_the_true_clip_is_perfect(name):
    case = CASES[name]
    for kind in KINDS:
        truth = Truth(case.clip, case.edits[kind])
        found = measure(truth.images, truth)
        assert {a: found[a] for a in KINDS} == dict.fromkeys(KINDS, 1.0), kind
        assert found["mae"] == found["outside_mae"] == 0
        assert found["centroid_px"] < 1.5
        assert math.isnan(found["slope"]) or found["slope"] > 0.9
        assert found["warp_object"] < 12 or case.edits[kind][0].things[0].texture != "plain"  # stripes do not grow
        assert found["colour_deviation"] == 0


def test_clips_and_captions_are_in_the_vocabulary_and_do_not_overlap():
    captions = [case.prompt(kind) for case in [*CASES.values(), *choice_cases()] for kind in KINDS]
    assert vocabulary.batch(captions).shape[0] == len(captions)
    assert not {c.clip for c in choice_cases()} & {c.clip for c in CASES.values()}
    assert len(CASES) == 12 and len({case.clip for case in CASES.values()}) == 12


def frozen(images):
    return images[:1].expand_as(images)


def shifted(images):
    return images.roll(6, dims=2)


def flickering(images):
    change = 0.1 * torch.tensor([(-1.0) ** i for i in range(len(images))])
    return (images + change[:, None, None, None]).clamp(0, 1)


FAULTS = {
    "a frozen clip does not move": (frozen, lambda f: abs(f["slope"]) < 0.1),
    "a shifted object is off its track": (shifted, lambda f: f["centroid_px"] > 4 and f["slope"] > 0.8),
    "a flickering clip flickers": (flickering, lambda f: f["warp_outside"] > 20 and f["colour_deviation"] > 5),
    "a white clip has no object": (torch.ones_like, lambda f: f["shape"] == 0 and math.isnan(f["slope"])),
}


@pytest.mark.parametrize("change, seen", FAULTS.values(), ids=FAULTS)
def test_a_fault_shows(change, seen):
    truth = Truth(SLIDE.clip, SLIDE.edits["colour"])
    assert seen(measure(change(truth.images), truth))
    assert not seen(measure(truth.images, truth))


def test_the_source_is_no_edit():
    images, _ = scenes.render(list(SLIDE.clip))
    for kind in KINDS:
        found = measure(images, Truth(SLIDE.clip, SLIDE.edits[kind]))
        assert found[kind] == 0
        assert all(found[other] == 1 for other in KINDS if other != kind)


def test_covariate_shift_by_hand():
    x = torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0))
    assert covariate_shift(x, x) == {"mean_shift": 0, "covariance_shift": 0}
    moved = covariate_shift(x, x + 2)
    assert moved["mean_shift"] == pytest.approx(2 / x.flatten(0, 1).var(dim=0, correction=0).mean().sqrt().item())
    assert moved["covariance_shift"] == pytest.approx(0, abs=1e-6)
    assert covariate_shift(x, 2 * x)["covariance_shift"] == pytest.approx(3)


def rows_of(values: dict) -> list[dict]:
    """Rows with one figure each: (method, clip) -> values of its seeds."""
    edit = dict.fromkeys((*KINDS, "slope", "correlation", "centroid_px", "static_px", "mae", "outside_mae",
                          "warp_outside", "warp_object", "colour_deviation"), 0.5)  # fmt: skip
    return [
        {"method": method, "clip": clip, "steps": 1, "seed": seed, "edits": {k: edit | {"mae": v} for k in KINDS},
         "reconstruction_db": 30, "tune_s": 1, "edit_s": 1, "peak_mib": 1}
        for (method, clip), seeds in values.items() for seed, v in enumerate(seeds)
    ]  # fmt: skip


def test_the_clip_is_the_unit_of_statistics():
    rows = rows_of({("a", "x"): [1.0, 3.0], ("a", "y"): [4.0, 4.0, 4.0], ("b", "x"): [1.0], ("b", "y"): [1.0]})
    clips = report.by_clip(rows, "mae")
    assert clips["a", 1] == {"x": 2.0, "y": 4.0}
    mean, half = report.interval(list(clips["a", 1].values()))
    assert (mean, half) == (3.0, pytest.approx(12.706, rel=1e-3))  # t of one degree of freedom, standard error 1
    assert "2.0 ± 12.7" in report.differences(rows, "a", "b").replace("2.00", "2.0")


def test_a_line_cut_short_is_left_out(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2')
    assert report.rows(path) == [{"a": 1}]
    assert report.rows(tmp_path / "none.jsonl") == []


def test_methods_differ_and_name_what_the_nodes_know():
    made = [
        (InflateOptions.from_mode(m.mode, m.attention, m.temporal, coarse_ratio=m.ratio, stam_init=m.init),
         m.tuned, m.control, m.key_frame, *m.change.items())
        for m in METHODS.values()
    ]  # fmt: skip
    assert len(set(made)) == len(made)
    assert {m.control for m in METHODS.values()} - {"", BY_KIND} <= set(KINDS_OF_CONTROL)
    assert set(KIND_OF.values()) <= set(KINDS_OF_CONTROL)
    assert set(MAIN) | set(CONTROLLED) | set(ABLATED) <= set(METHODS)
    assert set(MAIN) | set(BUDGETED) <= set(METHODS)
