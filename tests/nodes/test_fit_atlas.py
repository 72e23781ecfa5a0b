"""Fit Video Atlas on the real host, under inference mode: what comes out, progress, stopping, wrong input."""

from dataclasses import replace

import comfy.model_management
import comfy.utils
import pytest
import torch

from tools.server.in_process import pack

from .atlases import rendered, watched_bar
from .mini import run

EI2Error = pack("ei2_modules.errors").EI2Error
options = pack("ei2_modules.atlas.options")
fit_run = pack("nodes.host.atlas.fit_run")


@pytest.fixture(scope="module")
def clip():
    return rendered()


@pytest.fixture(autouse=True)
def few_steps(monkeypatch, folders):
    monkeypatch.setitem(options.PRESETS, "preview", 4)


def fit(images, **inputs):
    defaults = {"motion": "rigid", "preset": "preview", "seed": 0, "max_frames": 70}
    return run("fit_atlas.FitAtlas", images=images, **(defaults | inputs))


def psnr(a, b):
    return -10 * (a - b).square().mean().log10().item()


def test_what_comes_out(clip):
    atlas, reconstruction, foreground, background, alpha, report = fit(clip.images, mask=clip.mask)
    assert (atlas.frames, atlas.size, len(atlas.layers)) == (4, (40, 64), 2)
    assert psnr(reconstruction, clip.images) > 28
    assert foreground.shape[1] < background.shape[1] and foreground.shape[-1] == background.shape[-1] == 3
    assert ((alpha > 0.5) & (clip.alpha > 0.5)).sum() > 0.8 * (clip.alpha > 0.5).sum()
    assert "4 frames of 64x40, motion rigid, masks taken as rough, 4 steps" in report and "by Lucas-Kanade" in report
    assert report.count("fine") + report.count("LOOK") == 12
    parts = [atlas.layers[0].texture, atlas.layers[1].maps.offsets, *atlas.alphas]
    assert not any(part.requires_grad for part in parts)


def test_flow_given_is_the_one_that_is_used(clip, monkeypatch):
    flow = run("optical_flow.OpticalFlow", images=clip.images, method="auto", changing_light=False)[0]
    monkeypatch.setattr(fit_run.optical_flow, "estimator", None)  # asking for it fails
    *_, report = fit(clip.images, mask=clip.mask, flow=replace(flow, method="mine"))
    assert "flow by mine" in report


@pytest.mark.parametrize(
    ("inputs", "layers", "said"),
    [
        ({}, 1, "no mask: one layer"),
        ({"mask": "mask", "mask_2": "half"}, 3, "foreground 2's map"),
        ({"mask": "mask", "lighting": True, "motion": "affine"}, 2, "motion affine"),
        ({"mask": "mask", "masks": "tight"}, 2, "masks taken as tight"),
    ],
)
def test_ways_of_fitting(clip, inputs, layers, said):
    half = clip.mask.clone()
    half[:, :, :30] = 0
    given = {"mask": clip.mask, "half": half}
    atlas, *_, report = fit(
        clip.images, **{k: given.get(v, v) if k.startswith("mask") else v for k, v in inputs.items()}
    )
    assert len(atlas.layers) == layers and said in report
    assert (atlas.gains is not None) is inputs.get("lighting", False)


def test_progress_has_pictures(clip, monkeypatch):
    moves = watched_bar(monkeypatch)
    fit(clip.images, mask=clip.mask)
    assert [value for value, *_ in moves] == [3, *range(4, 8)] and {total for _, total, _ in moves} == {7}
    assert moves[0][2] is None and all(size == (512, moves[-1][2][1]) for *_, size in moves[1:])


@pytest.mark.parametrize(("at", "kept"), [(1, 0), (2, 1), (4, 1)])
def test_it_can_be_stopped_and_keeps_what_it_has(clip, monkeypatch, folders, at, kept):
    """While the flow is computed, and while it fits: what there is can be loaded."""
    calls = []

    def interrupt():
        calls.append(0)
        if len(calls) == at:
            raise comfy.model_management.InterruptProcessingException

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        fit(clip.images, mask=clip.mask)
    assert len(calls) == at
    files = pack("nodes.host.atlas.folder").list_files()
    assert files == ["unfinished_00001_.safetensors"] * kept
    if kept:
        (atlas,) = run("atlas_files.LoadAtlas", file_name=files[0], images=clip.images)
        assert psnr(atlas.render([1]), clip.images[1].movedim(-1, 0)) > 25


def test_a_full_disk_does_not_hide_that_it_was_stopped(clip, monkeypatch):
    def stop(*args):
        raise comfy.model_management.InterruptProcessingException

    def full(*args):
        raise EI2Error("No space left.")

    monkeypatch.setattr(fit_run.folder, "save", full)
    monkeypatch.setattr(fit_run.FitRun, "_after_step", stop)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        fit(clip.images, mask=clip.mask)


def noise(n):
    return torch.rand(n, 40, 64, 3, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": slice(0, 1)}, "1 frame: an atlas"),
        ({"mask": torch.zeros(4, 40, 64)}, "mask is empty in 4 of 4: frames 0-3"),
        ({"mask": torch.ones(4, 40, 64)}, "mask covers 100%"),
        ({"mask": torch.ones(3, 40, 64)}, "Got 3 masks in mask for 4 frames"),
        ({"mask_2": torch.ones(4, 64, 40)}, "mask_2 is 40x64, the images are 64x40"),
        ({"mask": torch.ones(4, 2, 40, 64)}, "Wire a MASK"),
        ({"max_frames": 3}, "4 frames; the limit is 3"),
        ({"motion": "wobbly"}, "motion is 'wobbly'"),
        ({"images": noise(4)}, "Flow agrees both ways on only"),
        ({"images": torch.full((4, 40, 64, 3), torch.nan)}, "not finite in frames 0-3"),
    ],
)
def test_bad_input_is_refused(clip, change, message):
    images = change.pop("images", clip.images) if "images" in change else clip.images
    images = clip.images[images] if isinstance(images, slice) else images
    with pytest.raises(EI2Error, match=message):
        fit(images, **({"mask": clip.mask} | change))


def test_flow_of_another_clip_is_refused(clip):
    flow = run("optical_flow.OpticalFlow", images=clip.images[:3], method="auto", changing_light=False)[0]
    with pytest.raises(EI2Error, match="The flow is of 3 frames of 64x40, the images are 4 frames"):
        fit(clip.images, flow=flow)


@pytest.mark.parametrize("at", ["Fit.step", "optical_flow.flow_of", "Fit"])
def test_too_little_memory_is_said(clip, monkeypatch, at):
    def fails(*args, **options):
        raise comfy.model_management.OOM_EXCEPTION

    monkeypatch.setattr(f"{fit_run.__name__}.{at}", fails)
    with pytest.raises(EI2Error, match="Not enough memory on cpu to fit frames of 64x40"):
        fit(clip.images, mask=clip.mask)
