"""Optical Flow on the real host: every method that is there, and what is said of one that is not."""

import sys
from types import SimpleNamespace

import comfy.model_management
import folder_paths
import pytest
import torch
from safetensors.torch import save_file

from tools.server.in_process import pack

from .mini import run

EI2Error = pack("ei2_modules.errors").EI2Error
optical_flow = pack("nodes.host.optical_flow")


def film(n=3, h=40, w=56, channels=3):
    noise = torch.rand(1, channels, h // 4 + 8, w // 4 + 8, generator=torch.Generator().manual_seed(0))
    wide = torch.nn.functional.interpolate(noise, scale_factor=4, mode="bicubic").clamp(0, 1)[0]
    return torch.stack([wide[:, :h, 4 * (n - t) : 4 * (n - t) + w] for t in range(n)]).movedim(1, -1)


def flow(images, method="auto", changing_light=False):
    return run("optical_flow.OpticalFlow", images=images, method=method, changing_light=changing_light)


@pytest.fixture
def weights(folders, monkeypatch):
    """models/optical_flow of a temporary place; call it with tensors to put a file of RAFT there."""
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "optical_flow", raising=False)
    optical_flow.register_folder()
    folder = folders / "models" / "optical_flow"
    folder.mkdir(parents=True)

    def put(tensors, name="raft_small.safetensors"):
        save_file(tensors, folder / name)
        folder_paths.filename_list_cache.clear()

    folder_paths.filename_list_cache.clear()
    yield put
    folder_paths.filename_list_cache.clear()


def raft():
    from torchvision.models.optical_flow import raft_small

    return {name: value.contiguous() for name, value in raft_small(weights=None).state_dict().items()}


@pytest.mark.parametrize(("channels", "light"), [(3, False), (4, False), (3, True)])
def test_what_comes_out(weights, channels, light):
    found, picture, agrees, report = flow(film(channels=channels), changing_light=light)
    assert (found.frames, found.size, found.method) == (3, (40, 56), "Lucas-Kanade")
    assert picture.shape == (2, 40, 56, 3) and picture.min() >= 0 and picture.max() <= 1
    assert agrees.shape == (2, 40, 56) and set(agrees.unique().tolist()) <= {0.0, 1.0}
    assert "2 pairs of 56x40 by Lucas-Kanade" in report
    assert found.forward[:, 0, 8:-8, 12:-12].median().item() == pytest.approx(4, abs=0.3)


def test_raft_is_taken_where_it_is(weights):
    images = film(2, 131, 136)
    assert optical_flow.estimator("auto", (131, 136))[1] == "Lucas-Kanade"
    weights(raft())
    assert optical_flow.estimator("auto", (100, 136))[1] == "Lucas-Kanade"  # too small for it
    found, *_ = flow(images)
    assert found.method == "RAFT" and found.forward.shape == (1, 2, 131, 136)


def test_farneback_is_opencvs(weights, monkeypatch):
    """OpenCV is no requirement: what is asked of it is recorded."""
    asked = []

    def calc(first, second, start, *options):
        asked.append((first.shape, first.dtype.name, options))
        return torch.full((*first.shape, 2), 1.5).numpy()

    fake = SimpleNamespace(
        COLOR_RGB2GRAY=7, cvtColor=lambda picture, code: picture[..., 0], calcOpticalFlowFarneback=calc
    )
    monkeypatch.setitem(sys.modules, "cv2", fake)
    found, *_ = flow(film(), "Farneback")
    assert found.method == "Farneback" and found.forward.unique().tolist() == [1.5]
    assert asked == [((40, 56), "uint8", (0.5, 4, 15, 3, 5, 1.2, 0))] * 4


@pytest.mark.parametrize(
    ("images", "method", "message"),
    [
        (film(1), "auto", "1 frame: motion is between frames"),
        (film()[:0], "auto", "holds no frame. Give 1"),
        (film()[0], "auto", r"images is \(40, 56, 3\)"),
        (film(), "RAFT", "RAFT needs 128 px at least, the frames are 56x40"),
        (film(2, 128, 128), "RAFT", "weights are not there.*raft_small.*optical_flow"),
        (film(), "DIS", "method is 'DIS'"),
        (film() * torch.nan, "Lucas-Kanade", "not finite"),
    ],
)
def test_bad_input_is_refused(weights, images, method, message):
    with pytest.raises(EI2Error, match=message):
        flow(images, method)


def test_without_opencv_it_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(EI2Error, match=r"Farneback needs OpenCV.*opencv-python-headless"):
        flow(film(), "Farneback")


@pytest.mark.parametrize("tensors", [{"x": torch.zeros(1)}, {"feature_encoder.convnormrelu.0.weight": torch.zeros(32)}])
def test_a_file_of_something_else_is_refused(weights, tensors):
    weights(tensors)
    with pytest.raises(EI2Error, match=r"raft_small\.safetensors does not hold the weights of torchvision's RAFT"):
        flow(film(2, 128, 128), "RAFT")


def test_it_can_be_stopped(weights, monkeypatch):
    monkeypatch.setattr(comfy.model_management, "interrupt_processing", True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        flow(film())
