"""Import Neural Atlas on the real host: what comes out, its list, progress and cancel, and files that are no such."""

import json
import os

import comfy.model_management
import pytest
import torch

from tools.server.in_process import pack

from .. import nla_checkpoint
from .atlases import watched_bar
from .mini import run

EI2Error = pack("ei2_modules.errors").EI2Error
nla_run = pack("nodes.host.atlas.nla_run")
SIZE, FRAMES = (40, 64), 3


@pytest.fixture
def trained(folders):
    """The folder of a checkpoint, in models/layered_atlases."""
    folder = folders / "models" / "layered_atlases" / "swan"
    nla_checkpoint.save(folder, nla_checkpoint.random_states(), nla_checkpoint.config_of(SIZE))
    return folder


@pytest.fixture(scope="module")
def images():
    """The clip that the networks draw, rendered from them frame by frame."""
    nla, bake = pack("ei2_modules.atlas.nla"), pack("ei2_modules.atlas.nla_bake")
    states = nla_checkpoint.random_states()
    networks = nla.Networks(**{k: nla.Network.of(states[k], *sides) for k, sides in nla.SIDES.items()})
    with torch.inference_mode():
        return bake.baked(networks, SIZE, FRAMES).atlas.render(range(FRAMES)).movedim(1, -1)


def importing(images, checkpoint="swan"):
    return run("import_nla.ImportNLA", images=images, checkpoint=checkpoint)


def test_what_comes_out(trained, images):
    atlas, reconstruction, foreground, background, alpha, report = importing(images)
    assert (atlas.frames, atlas.size, len(atlas.layers)) == (FRAMES, SIZE, 2)
    assert reconstruction.shape == (FRAMES, *SIZE, 3) and torch.allclose(reconstruction, images, atol=1e-5)
    assert foreground.shape == (1, *atlas.layers[0].observed.shape, 3)
    assert background.shape == (1, *atlas.layers[1].observed.shape, 3)
    assert torch.equal(alpha, atlas.alphas[0][:, 0].float() / 255)
    networks = "foreground 6x16, background 4x16, alpha 5x16, atlas 8x16"
    assert report.startswith(f"3 frames of 64x40, networks {networks}, imported from swan in ")
    assert [line.partition("  ")[2].partition(":")[0] for line in report.splitlines()[1:]] == [
        "reconstruction, PSNR",
        "foreground's map, baked, from the networks', mean",
        "foreground's map, baked, from the networks', worst",
        "background's map, baked, from the networks', mean",
        "background's map, baked, from the networks', worst",
        "foreground's stretch, 95th percentile",
        "background's stretch, 95th percentile",
        "background's picture seen by some frame",
    ]
    assert "fine  reconstruction, PSNR: 100 dB" in report and "LOOK" not in report


def test_another_clip_is_told(trained, images):
    *_, report = importing(1 - images)
    assert "LOOK  reconstruction, PSNR" in report and "Wire the clip that the networks were trained on" in report


def test_the_other_nodes_work_with_it(trained, images, folders):
    atlas, *_ = importing(images)
    picture = torch.ones(1, *atlas.layers[0].observed.shape, 3)
    edited, clip = run("edit_atlas.ReplaceAtlas", atlas=atlas, picture=picture, layer="foreground", images=images)
    assert (clip - images).abs().amax() > 0.2
    run("atlas_files.SaveAtlas", atlas=edited, file_name="swan")
    (again,) = run("atlas_files.LoadAtlas", file_name="swan_00001_.safetensors", images=images)
    assert torch.equal(run("aggregate_atlas.RenderAtlas", atlas=again, images=images)[0], clip)
    assert "2 layers" in run("edit_atlas.InspectAtlas", atlas=atlas, squares=8)[-1]
    with pytest.raises(EI2Error, match="fitted to another clip"):
        run("edit_atlas.ReplaceAtlas", atlas=atlas, picture=picture, layer="foreground", images=1 - images)


def test_progress_is_frames_and_pictures(trained, images, monkeypatch):
    moves = watched_bar(monkeypatch)
    importing(images)
    assert [(value, total) for value, total, _ in moves] == [(i, 5) for i in range(1, 6)]


def test_cancel_stops_between_chunks(trained, images, monkeypatch):
    class Stopped(BaseException):
        pass

    calls, moves = [], watched_bar(monkeypatch)

    def interrupted():
        calls.append(1)
        if len(calls) == 5:
            raise Stopped

    monkeypatch.setattr(pack("ei2_modules.atlas.nla"), "CHUNK", 500)
    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(Stopped):
        importing(images)
    assert len(calls) == 5 and moves == []  # within the first frame


def test_too_little_memory_is_said(trained, images, monkeypatch):
    def full(*args):
        raise comfy.model_management.OOM_EXCEPTION("full")

    monkeypatch.setattr(nla_run, "baked", full)
    with pytest.raises(EI2Error, match="Not enough memory"):
        importing(images)


def test_the_list_holds_folders_with_both_files(trained):
    root = trained.parent
    for name, files in {
        "half": ["checkpoint"],
        "other": ["config.json"],
        "whole": ["checkpoint", "config.json"],
    }.items():
        (root / name).mkdir()
        for file in files:
            (root / name / file).write_text("{}")
    (root / "checkpoint").write_text("")
    assert nla_run.list_checkpoints() == ["swan", "whole"]
    node = pack("nodes.import_nla").ImportNLA
    assert node.define_schema().inputs[1].options == ["swan", "whole"]
    assert node.validate_inputs(checkpoint="swan") is True and node.validate_inputs(checkpoint=None) is True
    assert "is not in models/layered_atlases" in node.validate_inputs(checkpoint="half")


@pytest.mark.parametrize("name", ["gone", "../layered_atlases/swan", "swan/", ".", "", None])
def test_only_listed_names_are_opened(trained, images, name):
    with pytest.raises(EI2Error, match="is not in models/layered_atlases"):
        importing(images, name)


def test_an_empty_list_names_the_folder(folders, images):
    with pytest.raises(EI2Error, match="There is no checkpoint in models/layered_atlases"):
        importing(images, None)


def test_a_changed_file_runs_again(trained):
    node, before = pack("nodes.import_nla").ImportNLA, []
    for part in ("checkpoint", "config.json"):
        before.append(node.fingerprint_inputs(checkpoint="swan", images=None))
        os.utime(trained / part, ns=(1, len(before)))
    assert len({*before, node.fingerprint_inputs(checkpoint="swan")}) == 3


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (
            lambda folder: (folder / "checkpoint").write_bytes(b"<html>"),
            "checkpoint is no file of PyTorch 1.6 or newer",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "config.json has None for resx"),
    ],
)
def test_bad_files_are_refused(trained, images, spoil, said):
    """All of them: tests/modules/test_nla_file.py."""
    spoil(trained)
    with pytest.raises(EI2Error, match=said):
        importing(images)


@pytest.mark.parametrize("size", [(40, 64), (432, 768)])
def test_another_clip_than_trained_on_is_refused(trained, images, size):
    config = nla_checkpoint.config_of(size, most=2)
    (trained / "config.json").write_text(json.dumps(config))
    said = "trained on frames of 768x432 .config.json., and images are 64x40. Scale the clip"
    if size == SIZE:
        said = "trained on 2 frames at most .config.json., and images are 3. Wire the first 2"
    with pytest.raises(EI2Error, match=said):
        importing(images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda images: images[:1], "1 frame: an atlas is what frames have in common"),
        (lambda images: images * torch.nan, "not finite"),
        (lambda images: images[:, :, :32], "trained on frames of 64x40"),
        (lambda images: images[0], "frames as .n, height, width, 3. are needed"),
    ],
)
def test_bad_images_are_refused(trained, images, change, said):
    with pytest.raises(EI2Error, match=said):
        importing(change(images))
