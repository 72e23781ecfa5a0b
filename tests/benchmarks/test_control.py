"""`bench control` sees what control costs and holds: the passes, what a step takes, and what would be left behind."""

from types import SimpleNamespace

import pytest
import torch

from benchmarks.common import miniature
from benchmarks.speed import control, steps
from benchmarks.speed.gpu import ONE_LEVEL

MIB = 2**20


@pytest.fixture(scope="module")
def case():
    with torch.inference_mode():
        model = miniature.model(**ONE_LEVEL)
        return steps.Case.inflated(model, miniature.clip(2)["samples"], text=miniature.caption())


def test_three_passes_for_two(case):
    with torch.inference_mode():
        plain, everything = control.rows_of(case, [control.EVERYTHING], 2, 1)
    assert (plain["passes"], everything["passes"]) == (2, 3)
    assert (plain["/ plain"], plain["counted"], plain["keeps MiB"], plain["over MiB"]) == (1, 1, 0, 0)
    assert everything["/ plain"] == everything["s"] / plain["s"]
    assert 1.4 < everything["counted"] < 1.8
    assert everything["over MiB"] > everything["keeps MiB"] > 0


def test_a_share_of_the_steps_is_a_share_of_the_passes(case, monkeypatch):
    """Of three steps one and two thirds are done when the two begin that count: half of all is one of them."""
    half = control.ControlOptions(cross_share=0.5, self_share=0.0)
    monkeypatch.setattr(steps, "EVERYTHING", half)
    with torch.inference_mode():
        assert control.count(case, control.EVERYTHING, 2).passes == 2.5


def test_what_a_step_leaves_behind_is_seen(case, monkeypatch):
    left = []

    class Leaking(control.guiding.ControlledGuider):
        def predict_noise(self, *args, **kwargs):
            left.append(torch.zeros(MIB // 4))
            return super().predict_noise(*args, **kwargs)

    with torch.inference_mode():
        before = control.count(case, control.EVERYTHING, 2)
        monkeypatch.setattr(control.guiding, "ControlledGuider", Leaking)
        after = control.count(case, control.EVERYTHING, 2)
    assert len(left) == 3
    assert after.grows - before.grows == MIB
    assert after.keeps == before.keeps


def test_what_is_taken_is_counted_once(monkeypatch):
    """Of a step as the guider hands it on: two views of one storage, and a tensor of its own."""
    monkeypatch.setattr(control.guiding, "Editing", lambda step: step)
    both, own, found = torch.zeros(2, 8), torch.zeros(4), []
    step = SimpleNamespace(recorded={"self": (both[0], both[1]), "features": (own,)})
    with control.noted(found):
        assert control.guiding.Editing(step) is step
    assert found == [4 * (16 + 4)]
    control.guiding.Editing(step)
    assert len(found) == 1


def test_null_text_is_counted_in_passes(case):
    """An update is a pass forward and one back, of about twice its operations, over half of what a plain step sees."""
    with torch.inference_mode():
        one, three = (control.null_text(case, updates, plain=1.0)["counted"] for updates in (1, 3))
    assert 0.8 < (three - one) / 2 < 2.0
    assert one > 2  # sampled before and after
