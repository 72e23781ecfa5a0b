"""Save, list, load; and the stock LoRA loader on the same file."""

import errno
from dataclasses import replace

import comfy.lora
import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch

from .mini import inflate, model, pack, plain_sample, run, tune


@pytest.fixture
def saved(folders):
    m = model()
    tuned, weights, _ = tune(inflate(m))
    run("tuned_weights.SaveWeights", weights=weights, file_name="my clip", folder="output/ei2")
    return m, tuned, weights


def test_saved_is_listed_and_loads_to_the_same_model(saved, folders):
    m, tuned, _ = saved
    assert folder_paths.get_filename_list("ei2") == ["my clip_00001_.safetensors"]
    (loaded,) = run("tuned_weights.LoadWeights", file_name="my clip_00001_.safetensors")
    assert torch.equal(plain_sample(inflate(m, weights=loaded)), plain_sample(tuned))


def test_nothing_is_overwritten(saved, folders):
    run("tuned_weights.SaveWeights", weights=saved[2], file_name="my clip", folder="output/ei2")
    run("tuned_weights.SaveWeights", weights=saved[2], file_name="my clip", folder="models/ei2")
    found = sorted(str(p.relative_to(folders)) for p in folders.rglob("*.safetensors"))
    assert found == [
        "models/ei2/my clip_00001_.safetensors",
        "output/ei2/my clip_00001_.safetensors",
        "output/ei2/my clip_00002_.safetensors",
    ]


def test_a_changed_file_is_read_again(saved):
    node = pack("nodes.tuned_weights").LoadWeights
    before = node.fingerprint_inputs("my clip_00001_.safetensors")
    path = pack("nodes.host.files.weights_folder").find("my clip_00001_.safetensors")
    path.write_bytes(path.read_bytes() + b" ")
    assert node.fingerprint_inputs("my clip_00001_.safetensors") != before


def test_weights_without_anything_learnt_are_not_saved_and_said_when_loaded(saved, folders, caplog):
    """Older versions wrote such files when they tuned on a GGUF checkpoint."""
    nothing = {path: torch.zeros_like(difference) for path, difference in saved[2].tensors.queries.items()}
    weights = replace(saved[2], tensors=replace(saved[2].tensors, queries=nothing))
    with pytest.raises(
        pack("ei2_modules.errors").EI2Error, match=f"all {len(nothing)} query differences are exactly 0"
    ):
        run("tuned_weights.SaveWeights", weights=weights, file_name="nothing", folder="output/ei2")
    pack("ei2_modules.inflation.weights").save(folders / "output" / "ei2" / "old.safetensors", weights)
    run("tuned_weights.LoadWeights", file_name="my clip_00001_.safetensors")
    assert "nothing that was learnt" not in caplog.text
    run("tuned_weights.LoadWeights", file_name="old.safetensors")
    assert "old.safetensors holds nothing that was learnt" in caplog.text


def test_stock_lora_loader_applies_the_query_part(saved, folders):
    m, _, weights = saved
    path = pack("nodes.host.files.weights_folder").find("my clip_00001_.safetensors")
    file = comfy.utils.load_torch_file(str(path), safe_load=True)
    patched, _ = comfy.sd.load_lora_for_models(m, None, file, 0.5, 0.0)
    assert set(patched.patches) == {f"diffusion_model.{p}.weight" for p in weights.tensors.queries}
    by_hand = m.clone()
    by_hand.add_patches(
        {f"diffusion_model.{p}.weight": ("diff", (t,)) for p, t in weights.tensors.queries.items()}, 0.5
    )
    assert torch.equal(plain_sample(patched), plain_sample(by_hand))


FOLDER_FAULTS = {
    errno.EACCES: "may write to",
    errno.EROFS: "may write to",
    errno.ENOSPC: "Free some space",
    errno.ENAMETOOLONG: "a shorter name",
    errno.EIO: "another folder",
}


@pytest.mark.parametrize("number", FOLDER_FAULTS)
def test_a_folder_that_cannot_be_written_to(saved, monkeypatch, number):
    storage = pack("nodes.host.files.weights_folder")

    def refuse(*args, **kwargs):
        raise OSError(number, "No")

    monkeypatch.setattr(storage.Path, "mkdir", refuse)
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match=rf"cannot be written to.*{FOLDER_FAULTS[number]}"):
        storage.save(saved[2], "x", "models/ei2")


def test_a_file_that_the_host_overlooks_is_not_overwritten(saved, monkeypatch):
    """As on a disk where Clip and clip are one file."""
    storage = pack("nodes.host.files.weights_folder")
    there = storage.save(saved[2], "clip", "models/ei2")
    before = there.read_bytes()
    monkeypatch.setattr(folder_paths, "get_save_image_path", lambda name, target: (target, name, 1, "", name))
    assert storage.save(saved[2], "clip", "models/ei2").name == "clip_00002_.safetensors"
    assert there.read_bytes() == before


@pytest.mark.parametrize("typed", ["caf\u00e9", "cafe\u0301"])
def test_a_name_is_one_name_however_it_is_typed(saved, typed):
    node = pack("nodes.tuned_weights").SaveWeights
    assert node.validate_inputs(file_name=typed, folder="output/ei2") is True
    run("tuned_weights.SaveWeights", weights=saved[2], file_name=typed, folder="output/ei2")
    assert "caf\u00e9_00001_.safetensors" in folder_paths.get_filename_list("ei2")


@pytest.mark.parametrize("name", ["\u732b" * 84, "CON", "x.", "a/b", ""])
def test_a_name_that_cannot_be_is_refused_before_any_work(name):
    assert "cannot be a file name" in pack("nodes.tuned_weights").SaveWeights.validate_inputs(file_name=name)
