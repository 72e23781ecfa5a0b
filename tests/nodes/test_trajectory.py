"""The latents of an inversion: exact wherever they lie, on disk when they are many, and gone with their LATENT."""

import copy
import errno
import gc
import logging
import sys
import weakref

import folder_paths
import psutil
import pytest
import torch
from safetensors import SafetensorError

from .mini import clip, inflate, invert, model, pack, sample

trajectory = pack("nodes.host.sampling.trajectory")
RECORD = pack("nodes.host.sampling.record").RECORD
SMALL = {"channel_mult": [1], "num_res_blocks": [1], "transformer_depth": [1], "transformer_depth_output": [1, 1]}


@pytest.fixture
def temp(tmp_path):
    """The host's temporary folder, not made yet."""
    before = folder_paths.get_temp_directory()
    folder_paths.set_temp_directory(str(tmp_path / "temp"))
    yield tmp_path / "temp"
    folder_paths.set_temp_directory(before)


@pytest.fixture
def on_disk(monkeypatch):
    monkeypatch.setattr(trajectory, "IN_MEMORY", 0)


def files(temp):
    """Of latents; the picture that the node shows lies there too."""
    return sorted(path.name for path in temp.rglob("*") if path.is_file() and path.suffix != ".png")


def masked(noise):
    return {**noise, "noise_mask": torch.eye(64)[None]}


def test_few_latents_stay_in_main_memory(temp):
    invert(inflate(model(**SMALL)), steps=3)
    assert not files(temp)


def test_on_disk_they_are_the_same(temp, monkeypatch):
    m = inflate(model(**SMALL))
    here = invert(m, steps=3)[0]
    monkeypatch.setattr(trajectory, "IN_MEMORY", 0)
    there = invert(m, steps=3)[0]
    assert files(temp) == ["000.safetensors", "001.safetensors", "002.safetensors", "003.safetensors"]
    assert all(map(torch.equal, there[RECORD].trajectory, here[RECORD].trajectory))
    assert torch.equal(sample(m, masked(there), cfg=4.0), sample(m, masked(here), cfg=4.0))


def test_the_files_go_with_the_last_latent(temp, on_disk):
    first = invert(inflate(model(**SMALL)), steps=3)[0]
    second = {**first, "batch_index": [0, 1, 2]}  # what any node makes of it
    del first
    gc.collect()
    assert len(files(temp)) == 4
    del second
    gc.collect()
    assert not files(temp) and not any(path.is_dir() for path in temp.iterdir())


def test_a_deep_copy_is_the_same_one(temp, on_disk):
    noise = invert(inflate(model(**SMALL)), steps=3)[0]
    copied = copy.deepcopy(noise)
    assert copied[RECORD].trajectory is noise[RECORD].trajectory
    del noise
    gc.collect()
    assert len(files(temp)) == 4


def test_an_inversion_that_is_stopped_leaves_no_files(temp, on_disk, monkeypatch):
    m = inflate(model(**SMALL))
    monkeypatch.setattr(m.model, "apply_model", lambda x, t, **kwargs: x * float("nan"))
    with pytest.raises(pack("ei2_modules.errors").EI2Error):
        invert(m, steps=3)
    gc.collect()
    assert not list(temp.iterdir())


FULL = {"no space": OSError(errno.ENOSPC, "No space left on device"), "safetensors": SafetensorError("No space left")}


@pytest.mark.parametrize("error", FULL.values(), ids=FULL)
def test_a_full_disk_costs_main_memory_and_is_said(temp, on_disk, monkeypatch, caplog, error):
    module, kept = pack("ei2_modules.files.mapped"), trajectory.Trajectory(1)
    save = module.save_file
    latents = [torch.full((3, 4, 8, 8), float(i)) for i in range(3)]
    kept.append(latents[0])

    def full(*args):
        raise error

    monkeypatch.setattr(module, "save_file", full)
    with caplog.at_level(logging.WARNING):
        kept.append(latents[1])
    monkeypatch.setattr(module, "save_file", save)
    kept.append(latents[2])
    assert all(map(torch.equal, kept, latents)) and len(kept) == 3
    assert "stay in main memory: " in caplog.text and "No space left" in caplog.text


def test_without_a_temporary_folder_they_stay_in_main_memory(tmp_path, temp, on_disk, caplog):
    temp.write_text("a file where the folder should be")
    with caplog.at_level(logging.WARNING):
        noise = invert(inflate(model(**SMALL)), steps=3)[0]
    assert len(noise[RECORD].trajectory) == 4 and "stay in main memory" in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not list what is mapped")
def test_a_long_clip_takes_no_main_memory(temp):
    """A third of what 256 frames of 512x512 have in 50 steps: the tensors are the files, and hardly a page is read."""
    latents = torch.randn(96, 4, 64, 64)
    kept = trajectory.Trajectory(51 * latents.nbytes)
    for i in range(51):
        kept.append(latents + i)
    maps = [m for m in psutil.Process().memory_maps(grouped=False) if str(temp) in m.path]
    ranges = [range(*(int(end, 16) for end in m.addr.split("-"))) for m in maps]
    assert all(any(t.data_ptr() in r for r in ranges) for t in kept)
    assert sum(m.rss for m in maps) < 0.1 * 51 * latents.nbytes
    assert torch.equal(kept[50], latents + 50)


@pytest.mark.parametrize("frames", [[0, 1, 2], [1, 2], [2, 0, 2]], ids=str)
def test_some_frames_are_cut_where_they_are_asked_for(frames):
    kept = trajectory.Trajectory(0)
    for i in range(3):
        kept.append(clip(3, seed=i)["samples"])
    assert [torch.equal(a, b[frames]) for a, b in zip(kept.of(frames), kept, strict=True)] == [True] * 3


def test_what_some_frames_refer_to_lives_on(temp, on_disk):
    kept = trajectory.Trajectory(1)
    kept.append(clip(3)["samples"])
    cut, gone = kept.of([1]), weakref.ref(kept)
    del kept
    gc.collect()
    assert torch.equal(cut[0], clip(3)["samples"][1:2])
    del cut
    gc.collect()
    assert gone() is None and not list(temp.iterdir())
