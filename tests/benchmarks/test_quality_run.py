"""A run of the quality benchmark, with the shipped model in the real host, gives every figure."""

import json

import pytest
import torch

from benchmarks.quality import report
from benchmarks.quality.cases import KINDS, METHODS, Settings, cases
from benchmarks.quality.limits import limits
from benchmarks.quality.run import Editor
from ei2_modules.config import InflateOptions


@pytest.mark.parametrize(
    "method", ["per-frame", "Tune-A-Video", "EI² r=2", "EI² untuned + control", "Video-P2P", "vid2vid-zero", "FateZero"]
)
def test_a_run_gives_every_figure(method, tmp_path):
    case, settings = cases()[0], Settings(steps=1, ddim_steps=2)
    with torch.inference_mode():
        row = Editor().run(case, method, 33, settings, tmp_path / "x.png")
    assert (tmp_path / "x.png").exists()
    json.dumps(row, allow_nan=False)
    row |= {"clip": case.name, "method": method, "steps": 1}
    known = report.figures(row)
    assert set(report.HEADINGS) <= set(known)
    assert (known["mean_shift"] is None) == (_temporal(METHODS[method]) == "none")
    if method == "EI² r=2":
        assert known["mean_shift_before"] == 0  # zero-query: no effect before tuning


def test_the_best_that_can_be_had():
    _, _, *lines = [line.strip("| ").split(" | ") for line in limits(cases()[:1]).splitlines()]
    assert [line[:2] for line in lines] == [[k, of] for k in KINDS for of in ("the true clip", "its round trip")]
    true, again = ([[float(x) for x in line[2:]] for line in lines[start::2]] for start in (0, 1))
    for best, coded in zip(true, again, strict=True):
        assert best[:2] == [0, 0] and all(x < y for x, y in zip(best, coded, strict=True)), (best, coded)


def _temporal(method):
    return InflateOptions.from_mode(method.mode, method.attention, method.temporal).temporal
