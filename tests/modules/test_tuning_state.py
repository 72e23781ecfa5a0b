"""The file a tuning goes on from, on the toy: nothing is lost in it, and nothing damaged is taken."""

from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import save_file

from ei2_modules.config import InflateOptions, TuningOptions
from ei2_modules.errors import WeightsError
from ei2_modules.files import safetensors_file
from ei2_modules.tuning import state as tuning_state
from ei2_modules.tuning.loop import Tuning

from .mutated import mutated
from .toy import SIGMAS, clip, denoiser, make

KEY = tuning_state.RunKey("clip", "caption", "start", "patches", "fp32", ["SD15", "eps"], [], [0.5], {}, {"seed": 1})


def fresh(init="random", steps=6, window=16):
    return Tuning(make(InflateOptions(stam_init=init)), TuningOptions(steps, learning_rate=1e-2, window=window))


def advance(tuning, until):
    for step in tuning.steps(denoiser(tuning.trainables), clip(), SIGMAS, "eps"):
        if step.number == until:
            return tuning
    return tuning


@pytest.mark.parametrize("init", ["random", "zero-query", "clamp"])
@pytest.mark.parametrize("at", [1, 3, 6])
@pytest.mark.parametrize("window", [2, 16])
def test_through_a_file_and_on_is_as_if_never_stopped(tmp_path, init, at, window):
    whole = advance(fresh(init, window=window), 6)
    tuning_state.save(tmp_path / "s", advance(fresh(init, window=window), at), KEY, 12.5)
    resumed = fresh(init, window=window)
    assert tuning_state.restore(tmp_path / "s", resumed) == 12.5
    assert resumed.done == at
    advance(resumed, 6)
    assert resumed.losses == whole.losses
    for (name, a), b in zip(
        whole.trainables.state_dict().items(), resumed.trainables.state_dict().values(), strict=True
    ):
        assert torch.equal(a, b), name


def test_the_head_is_read_without_the_tensors(tmp_path):
    tuning_state.save(tmp_path / "s", advance(fresh(), 2), KEY, 1.0)
    assert tuning_state.read(tmp_path / "s") == (KEY, 2)


def test_nothing_of_the_optimiser_may_be_left_behind():
    """Each part of the state matters: without it the next steps differ."""
    whole = advance(fresh(), 6).trainables.export()
    tensors, plain = advance(fresh(), 3).state()
    tensors = {name: t.clone() for name, t in tensors.items()}
    for part in ("exp_avg", "exp_avg_sq", ".step", "generator"):
        changed = {
            k: torch.Generator().manual_seed(9).get_state() if k == "generator" else torch.ones_like(v)
            for k, v in tensors.items()
            if k.endswith(part)
        }
        assert changed
        resumed = fresh()
        resumed.restore(tensors | changed, plain)
        end = advance(resumed, 6).trainables.export()
        assert any(not torch.equal(end.queries[k], whole.queries[k]) for k in whole.queries), part


def test_a_state_of_before_the_group_norm_was_a_choice_goes_on():
    ours = asdict(InflateOptions())
    older = replace(KEY, inflation={name: value for name, value in ours.items() if name != "group_norm"})
    assert replace(KEY, inflation=ours).differences(older) == []
    pooled = replace(KEY, inflation=ours | {"group_norm": "pooled"})
    assert pooled.differences(older) == ["group norm (per frame there, pooled here)"]


@pytest.mark.parametrize("number", range(40))
def test_a_mutated_state_is_refused(tmp_path, number):
    path = tmp_path / "s"
    tuning_state.save(path, advance(fresh(), 2), KEY, 1.0)
    path.write_bytes(mutated(path.read_bytes(), number))
    with pytest.raises(WeightsError):
        tuning_state.restore(path, fresh())


def test_a_state_without_its_checksum_is_refused(tmp_path):
    path = tmp_path / "s"
    tuning_state.save(path, advance(fresh(), 2), KEY, 1.0)
    tensors, metadata = safetensors_file.load(path)
    save_file(tensors, path, {name: text for name, text in metadata.items() if name != safetensors_file.CHECKSUM})
    for read in (tuning_state.read, lambda path: tuning_state.restore(path, fresh())):
        with pytest.raises(WeightsError, match="is damaged"):
            read(path)


def test_a_state_of_another_shape_is_refused(tmp_path):
    tuning_state.save(tmp_path / "s", advance(fresh(), 2), KEY, 1.0)
    other = Tuning(make(InflateOptions(temporal="layer norm")), TuningOptions(steps=6))
    with pytest.raises(WeightsError, match="cannot be gone on from"):
        tuning_state.restore(tmp_path / "s", other)


def test_what_a_killed_process_left_is_removed_in_time(tmp_path, monkeypatch):
    left = tmp_path / ".s.999999.partial"
    left.write_bytes(b"half")
    safetensors_file.save(tmp_path / "s", {"x": torch.ones(1)}, {})
    assert left.exists(), "another server may be writing it just now"
    monkeypatch.setattr(safetensors_file, "STALE", -1)
    safetensors_file.save(tmp_path / "s", {"x": torch.ones(1)}, {})
    assert not left.exists()
