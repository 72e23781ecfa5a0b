"""'EI² Load Clip' in the host: what it lists and refuses, beside what the host's own nodes give."""

import inspect
import os
from fractions import Fraction

import pytest
import torch

from tools.server.in_process import host, pack

from ..filmed import film, greys, turn, which

EI2Error = pack("ei2_modules.errors").EI2Error
VALUES = {"start": 0.0, "duration": 0.0, "frames": 4, "fps": 0.0, "long_side": 0, "fit": "keep aspect"}


@pytest.fixture
def videos(tmp_path):
    """The host's input and output folders, in a temporary place."""
    import folder_paths

    before = folder_paths.get_input_directory(), folder_paths.get_output_directory()
    for name, set_to in (("input", folder_paths.set_input_directory), ("output", folder_paths.set_output_directory)):
        (tmp_path / name).mkdir()
        set_to(str(tmp_path / name))
    yield tmp_path
    folder_paths.set_input_directory(before[0])
    folder_paths.set_output_directory(before[1])


def node():
    return pack("nodes.load_clip").LoadClip


def load(file, vae=None, **values):
    return node().execute(file=file, vae=vae, **(VALUES | values)).result


def test_the_frames_are_those_of_the_hosts_own_nodes(videos):
    """Get Video Components, every tenth, then Upscale Image with lanczos and crop."""
    film(videos / "input" / "a.mp4", greys(40, 80, 48))
    source = host("comfy_api.input_impl").VideoFromFile(str(videos / "input" / "a.mp4")).get_components()
    images, fps, mask, report = load("a.mp4", long_side=32, fit="crop to square")
    scale = host("nodes").ImageScale().upscale
    assert torch.equal(images, scale(source.images[::10], "lanczos", 32, 32, "center")[0])
    assert fps == 1.0 and isinstance(fps, float) and mask.shape == (4, 32, 32) and "a.mp4: 80x48" in report


def test_a_video_of_what_comes_out_lasts_as_long(videos):
    film(videos / "input" / "a.mp4", greys(40))
    images, fps, _, _ = load("a.mp4", duration=3.0)
    api = host("comfy_api.util")
    parts = api.VideoComponents(images=images, audio=None, frame_rate=Fraction(fps))
    path = str(videos / "output" / "b.mp4")
    host("comfy_api.input_impl").VideoFromComponents(parts).save_to(path)
    assert host("comfy_api.input_impl").VideoFromFile(path).get_duration() == pytest.approx(3.0, abs=0.01)


class Vae:
    """As far as it is asked here."""

    def __init__(self, pixels):
        self.pixels = pixels

    def spacial_compression_encode(self):
        return self.pixels


@pytest.mark.parametrize("pixels, size", [(None, (48, 80)), (4, (52, 84)), (16, (48, 80)), (32, (32, 64))])
def test_sizes_fit_the_vae(videos, pixels, size):
    film(videos / "input" / "a.mkv", greys(8, 84, 52), codec="ffv1", pixels="bgr0")
    images = load("a.mkv", vae=None if pixels is None else Vae(pixels))[0]
    assert images.shape == (4, *size, 3)


def test_the_vae_is_asked_in_the_hosts_way(videos):
    vae = pack("nodes.demo_model").LoadDemoModel.execute().result[2]
    assert pack("nodes.host.video_folder").multiple_of(vae) == 4


def test_names(videos):
    (videos / "input" / "sub").mkdir()
    for name in ("a.mp4", "with spaces 和 中文.mp4", "sub/b.mp4", "text.txt"):
        (videos / "input" / name).write_bytes(b"")
    film(videos / "output" / "c.mp4", greys(8))
    (options,) = (i.options for i in node().define_schema().inputs if i.id == "file")
    assert options == ["a.mp4", "with spaces 和 中文.mp4"]
    for there in (*options, "sub/b.mp4", "c.mp4 [output]", None):
        assert node().validate_inputs(file=there, fit="keep aspect") is True
    assert which(load("c.mp4 [output]")[0]) == [0, 2, 4, 6]


OUTSIDE = ["gone.mp4", "../output/c.mp4", "/etc/hostname", "sub", "", "c.mp4 [nowhere]"]


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_is_not_there_is_refused_before_the_run(videos, name):
    (videos / "input" / "sub").mkdir()
    film(videos / "output" / "c.mp4", greys(1))
    fault = node().validate_inputs(file=name, fit="keep aspect")
    assert (
        fault == f"{name!r} is not in the input folder. Upload it with the node's button, or press R and choose again."
    )


def test_wrong_choices_are_refused_before_the_run(videos):
    film(videos / "input" / "a.mp4", greys(1))
    assert "fit is 'stretch': it must be one of" in node().validate_inputs(file="a.mp4", fit="stretch")


def test_it_runs_again_when_the_file_has_changed(videos):
    path = film(videos / "input" / "a.mp4", greys(4))
    first = node().fingerprint_inputs(file="a.mp4", **VALUES)
    assert node().fingerprint_inputs(file="a.mp4", **VALUES) == first
    os.utime(path, ns=(0, 0))
    assert node().fingerprint_inputs(file="a.mp4", **VALUES) != first
    assert node().fingerprint_inputs(file=None, **VALUES) is None, "wired from another node"


def test_a_phone(videos):
    turn(film(videos / "input" / "a.mp4", greys(8, 64, 32)), 90)
    images, _, _, report = load("a.mp4")
    assert images.shape == (4, 64, 32, 3) and "turned by 90° clockwise" in report


def test_more_than_memory_is_refused(videos, monkeypatch):
    film(videos / "input" / "a.mp4", greys(8))
    memory = pack("nodes.host.video_folder").mm
    monkeypatch.setattr(memory, "get_free_memory", lambda device: 10**6)
    with pytest.raises(EI2Error, match=r"4 frames of 512x384 take 0\.0 GB"):
        load("a.mp4", long_side=512)
    assert load("a.mp4")[0].shape == (4, 48, 64, 3)


def test_cancelling(videos, monkeypatch):
    film(videos / "input" / "a.mp4", greys(8))
    mm = host("comfy.model_management")
    monkeypatch.setattr(pack("nodes.host.progress").Progress, "advance", lambda self: None)  # would cancel too, later
    mm.interrupt_current_processing(True)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            load("a.mp4")
    finally:
        mm.interrupt_current_processing(False)


def test_the_upload_is_the_hosts(videos):
    """The same flags as of Load Video, for the button and the preview in the editor."""
    ours, theirs = (
        cls.define_schema().inputs[0].as_dict() for cls in (node(), host("comfy_extras.nodes_video").LoadVideo)
    )
    ours.pop("tooltip")
    assert ours == {k: v for k, v in theirs.items() if k != "tooltip"} and ours["video_upload"] is True
    assert list(inspect.signature(node().validate_inputs).parameters) == ["file", "fit"]
