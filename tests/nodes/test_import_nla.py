"""Import Neural Atlas on the real host: what comes out, its list, progress and cancel, and files that are no such."""

import copy
import json
import os
import zipfile

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

    calls = []

    def interrupted():
        calls.append(1)
        if len(calls) == 5:
            raise Stopped

    monkeypatch.setattr(pack("ei2_modules.atlas.nla"), "CHUNK", 500)
    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupted)
    with pytest.raises(Stopped):
        importing(images)
    assert len(calls) == 5


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


def rewrite(change):
    """Change what the checkpoint holds, in place."""

    def changed(folder):
        saved = torch.load(folder / "checkpoint", weights_only=True)
        change(saved)
        torch.save(saved, folder / "checkpoint")

    return changed


def configure(**changes):
    def changed(folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return changed


def overwrite(content, name="checkpoint"):
    return lambda folder: (folder / name).write_bytes(content)


def in_the_way(folder):
    """Something of that name that is no file."""
    (folder / "checkpoint").unlink()
    (folder / "checkpoint").mkdir()


def cut(folder):
    path = folder / "checkpoint"
    path.write_bytes(path.read_bytes()[:-200])


def flip(folder):
    """One bit of a weight."""
    path = folder / "checkpoint"
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda info: info.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 400] ^= 1
    path.write_bytes(content)


def old_format(folder):
    """What PyTorch before 1.6 wrote."""
    torch.save({"F_atlas_state_dict": {}}, folder / "checkpoint", _use_new_zipfile_serialization=False)


class Code:
    ran = False

    def __reduce__(self):
        return setattr, (Code, "ran", True)


def with_code(folder):
    torch.save({"F_atlas_state_dict": Code()}, folder / "checkpoint")


def script(folder):
    """What tells PyTorch's reader of a TorchScript program."""
    with zipfile.ZipFile(folder / "checkpoint", "w") as archive:
        archive.writestr("checkpoint/constants.pkl", b"")


def weight(name, key, value):
    return rewrite(lambda saved: saved[nla_checkpoint.KEYS[name]][key].fill_(value))


BAD = [
    (in_the_way, "checkpoint cannot be read"),
    (lambda folder: (folder / "checkpoint").unlink(), "checkpoint cannot be read"),
    (lambda folder: (folder / "config.json").unlink(), "config.json cannot be read"),
    (overwrite(b""), "checkpoint is no file of PyTorch 1.6 or newer"),
    (overwrite(b"version https://git-lfs"), "checkpoint is no file of PyTorch 1.6 or newer"),
    (old_format, "checkpoint is no file of PyTorch 1.6 or newer"),
    (overwrite(b"PK\x03\x04 and nothing"), "checkpoint is damaged or half copied"),
    (cut, "checkpoint is damaged or half copied"),
    (flip, "checkpoint is damaged or half copied: .* has changed"),
    (with_code, "holds more than weights, so it was not read"),
    (script, "is a program .TorchScript. and no weights"),
    (lambda folder: torch.save([1, 2], folder / "checkpoint"),
     "lacks model_F_mapping1_state_dict, .*F_atlas_state_dict: it is no checkpoint of"),
    *((rewrite(lambda saved, key=key: saved.pop(key)), f"checkpoint lacks {key}:")
      for key in nla_checkpoint.KEYS.values()),
    (rewrite(lambda saved: saved.update(F_atlas_state_dict=3)), "checkpoint lacks F_atlas_state_dict:"),
    (rewrite(lambda saved: saved["F_atlas_state_dict"].pop("hidden.3.bias")),
     "F_atlas_state_dict is another kind of network: .*Copy it again"),
    (rewrite(lambda saved: saved.update(model_F_alpha_state_dict=saved["F_atlas_state_dict"])),
     "model_F_alpha_state_dict does not fit together|model_F_alpha_state_dict takes"),
    (weight("alpha", "hidden.2.weight", float("nan")), "model_F_alpha_state_dict holds values that are not finite"),
    (weight("foreground", "hidden.0.bias", float("inf")), "mapping1_state_dict holds values that are not finite"),
    (overwrite(b"{", "config.json"), "config.json is no JSON"),
    (overwrite(b"\xff\xfe{", "config.json"), "config.json is no JSON"),
    (overwrite(b"[]", "config.json"), "config.json has None for resx"),
    (configure(resx="64"), "config.json has '64' for resx: a whole number is needed"),
    (configure(resy=0), "config.json has 0 for resy"),
    (configure(resy=True), "config.json has True for resy"),
    (configure(maximum_number_of_frames=None), "config.json has None for maximum_number_of_frames"),
    (configure(number_of_layers_atlas=7), "config.json says 7 for number_of_layers_atlas and checkpoint holds 8"),
    (configure(number_of_channels_alpha=256), "says 256 for number_of_channels_alpha and checkpoint holds 16"),
    (configure(number_of_layers_mapping1=4), "says 4 for number_of_layers_mapping1 and checkpoint holds 6"),
    (configure(number_of_layers_mapping2=6), "says 6 for number_of_layers_mapping2 and checkpoint holds 4"),
    (configure(positional_encoding_num_alpha=4), "says 4 for positional_encoding_num_alpha and checkpoint holds 5"),
    (configure(use_positional_encoding_mapping1=True), "says True for use_positional_encoding_mapping1"),
    (configure(resx=768, resy=432), "trained on frames of 768x432 .config.json., and images are 64x40. Scale the clip"),
    (configure(maximum_number_of_frames=2), "trained on 2 frames at most .config.json., and images are 3. Wire the"),
]  # fmt: skip


@pytest.mark.parametrize(("spoil", "said"), BAD)
def test_bad_files_are_refused(trained, images, monkeypatch, spoil, said):
    monkeypatch.setattr(nla_run, "find", lambda name: trained)  # a file may go bad after it was listed
    spoil(trained)
    with pytest.raises(EI2Error, match=said) as caught:
        importing(images)
    assert not Code.ran and str(caught.value).endswith((".", "disabled."))


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


def test_encoded_mappings_are_read(folders, images):
    """Switched on in the config."""
    states = copy.deepcopy(nla_checkpoint.random_states())
    states["foreground"] = nla_checkpoint.random_state(3, 2, 4, layers=6)
    config = nla_checkpoint.config_of(SIZE, use_positional_encoding_mapping1=True)
    folder = folders / "models" / "layered_atlases" / "waves"
    nla_checkpoint.save(folder, states, config)
    assert importing(images, "waves")[0].frames == FRAMES
    nla_checkpoint.save(folder, states, config | {"number_of_positional_encoding_mapping1": 5})
    with pytest.raises(EI2Error, match="says 5 for number_of_positional_encoding_mapping1 and checkpoint holds 4"):
        importing(images, "waves")
