"""Metrics against slow, obvious references and known motions."""

import math
import re

import pytest
import torch

from ei2_modules.errors import EI2Error
from ei2_modules.metrics import figures as metrics
from ei2_modules.metrics import report as figures_report
from ei2_modules.metrics.guide import given_motion
from ei2_modules.metrics.report import measure
from ei2_modules.motion.flow import Flow
from ei2_modules.motion.optical_flow import estimate_flow, followed, warp


def texture(h, w, dx=0.0, dy=0.0, waves=60):
    """(1, 3, h, w) in 0..1: sines of many wavelengths, longer ones stronger, moved by exactly (dx, dy) pixels."""
    g = torch.Generator().manual_seed(0)
    angle, phase = 2 * math.pi * torch.rand(2, waves, 1, 1, generator=g)
    radius = 0.02 * 30 ** torch.rand(waves, 1, 1, generator=g)
    y, x = torch.meshgrid(torch.arange(h) - dy, torch.arange(w) - dx, indexing="ij")
    strength = radius**-0.7
    grey = (strength * torch.sin(radius * (x * angle.cos() + y * angle.sin()) + phase)).sum(0) / strength.sum()
    return (0.5 + 1.5 * grey).clamp(0, 1).expand(1, 3, h, w)


def moving(n, h=48, w=64, dx=1.5, dy=-0.5):
    """(n, h, w, 3) clip of a texture that moves by (dx, dy) per frame."""
    return torch.cat([texture(h, w, dx * i, dy * i) for i in range(n)]).permute(0, 2, 3, 1)


def frame_consistency(embeds):
    """Over all pairs, and over neighbours."""
    return tuple(
        metrics.mean_finite(figure(embeds)) for figure in (metrics.consistency_per_frame, metrics.neighbour_consistency)
    )


def slow_consistency(embeds):
    """Mean cosine x 100 over i < j, and over neighbours, one pair at a time."""
    pairs, neighbours = [], []
    for i in range(len(embeds)):
        for j in range(i + 1, len(embeds)):
            a, b = embeds[i].double(), embeds[j].double()
            cosine = (a @ b / (a.norm() * b.norm())).item()
            pairs.append(100 * cosine)
            if j == i + 1:
                neighbours.append(100 * cosine)
    return sum(pairs) / len(pairs), sum(neighbours) / len(neighbours)


# ---- embeddings ----


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("d", [1, 4, 768])
def test_consistency_equals_the_double_loop(n, d):
    embeds = torch.randn(n, d, generator=torch.Generator().manual_seed(n * d)) + 0.5
    assert frame_consistency(embeds) == pytest.approx(slow_consistency(embeds), abs=1e-9)


@pytest.mark.parametrize(
    "embeds, expected",
    [
        ([[1, 0], [1, 0], [1, 0]], (100, 100)),
        ([[1, 0], [5, 0]], (100, 100)),  # length does not count
        ([[1, 0], [0, 1]], (0, 0)),
        ([[1, 0], [-1, 0]], (-100, -100)),
        ([[1, 0], [0, 1], [1, 0]], (100 / 3, 0)),  # one of three pairs agrees, no neighbours do
    ],
)
def test_consistency_of_obvious_clips(embeds, expected):
    assert frame_consistency(torch.tensor(embeds).float()) == pytest.approx(expected)


def test_consistency_of_one_frame_is_not_a_number():
    assert all(map(math.isnan, frame_consistency(torch.ones(1, 4))))


@pytest.mark.parametrize(
    "frame, text, expected", [([3, 0], [1, 0], 100), ([0, 2], [1, 0], 0), ([1, 1], [1, 0], 70.7107)]
)
def test_text_alignment_is_100_cosines(frame, text, expected):
    values = metrics.text_alignment(torch.tensor([frame, frame]).float(), torch.tensor(text).float())
    assert values.tolist() == pytest.approx([expected] * 2, abs=1e-4)


def test_text_alignment_refuses_other_widths():
    with pytest.raises(EI2Error, match=r"clip_vision are 1024 wide.*clip 768"):
        metrics.text_alignment(torch.ones(2, 1024), torch.ones(768))


# ---- pixels ----


@pytest.mark.parametrize("offset, decibels", [(0.1, 20), (0.01, 40), (1.0, 0), (0.0, math.inf)])
def test_psnr(offset, decibels):
    source = torch.zeros(2, 4, 5, 3)
    assert metrics.psnr(source + offset, source).tolist() == pytest.approx([decibels] * 2, abs=1e-4)


UNLIKE = {  # another clip than 7 frames at 256x128: what is said of it
    (8, 512, 512, 3): ["source has 8 frames at 512x512, images 7 frames at 256x128", "same 7 frames", "to 256x128"],
    (7, 128, 250, 3): ["source has 7 frames at 250x128, images 7 frames at 256x128", "to 256x128"],
    (7, 160, 256, 3): ["source has 7 frames at 256x160", "to 256x128"],  # a VAE would keep all of it
    (1, 128, 256, 3): ["source has 1 frame at 256x128", "same 1 frames"],
    (0, 128, 256, 3): ["source has 0 frames at 256x128"],
}


@pytest.mark.parametrize("shape", UNLIKE)
def test_psnr_of_clips_that_do_not_fit_is_refused(shape):
    with pytest.raises(EI2Error) as caught:
        metrics.psnr(torch.zeros(7, 128, 256, 3), torch.zeros(1, 1, 1, 1).expand(shape))
    assert all(part in str(caught.value) for part in UNLIKE[shape])


@pytest.mark.parametrize("shape", UNLIKE)
def test_a_source_that_does_not_fit_takes_no_other_figure_away(shape):
    images, source = moving(7, 128, 256), moving(max(shape[0], 1), *shape[1:3])[: shape[0]]
    report, table, figures = measure(images, source)
    alone = measure(images)[2]
    assert {key: figures[key] for key in alone} == alone and "psnr" not in figures
    assert ("source_motion" in figures) == (shape[0] > 1)
    assert "left out: " in report
    assert UNLIKE[shape][0] in report or "it has 0 frames at 256x128" in report
    assert ("source_motion" in table) == (shape[0] == 7), "a row a frame"


@pytest.mark.parametrize("size, kept", [((97, 70), (96, 64)), ((100, 64), (96, 64)), ((71, 79), (64, 72))])
def test_a_source_is_cut_as_the_vae_cuts_it(size, kept):
    source = moving(3, *size)
    top, left = (size[0] - kept[0]) // 2, (size[1] - kept[1]) // 2
    middle = source[:, top : top + kept[0], left : left + kept[1]]
    edited = (middle * 0.9).clone()
    report, _, figures = measure(edited, source)
    assert figures == measure(edited, middle)[2] and figures["psnr"] > 20
    assert f"source has 3 frames at {size[1]}x{size[0]}: its middle {kept[1]}x{kept[0]}" in report


BROKEN = {  # what is wired to source, and what the report says of it
    "no image": ({"samples": 1}, "source is no IMAGE.*a dict"),
    "latents of a video": (torch.zeros(1, 4, 3, 8, 8), r"shape \(1, 4, 3, 8, 8\)"),
    "no width": (torch.zeros(3, 48, 0, 3), "3 frames at 0x48"),
    "no numbers": (torch.full((3, 48, 64, 3), math.nan), "frames 0, 1, 2 of source hold values that are not finite"),
}


@pytest.mark.parametrize("source, words", BROKEN.values(), ids=BROKEN)
def test_a_source_that_is_none_is_said(source, words):
    report, _, figures = measure(moving(3), source)
    assert re.search(words, report) and figures["motion"] > 0 and "psnr" not in figures


@pytest.mark.parametrize(
    "images", [None, "x", torch.zeros(48, 64, 3), torch.zeros(1, 3, 48, 64, 3), torch.zeros(1, 4, 4, 0)]
)
def test_what_is_no_image_is_refused(images):
    with pytest.raises(EI2Error, match=r"images is no IMAGE.*Wire the IMAGE output"):
        measure(images)


@pytest.mark.parametrize(
    "shape", [(0, 48, 64, 3), (0, 512, 512, 3), (2, 0, 0, 3), (1, 1, 1, 3), (3, 1, 2000, 3), (2, 9, 7, 1), (2, 9, 7, 2)]
)
def test_any_image_gets_a_report(shape):
    report, table, figures = measure(torch.rand(shape), torch.rand(shape))
    assert figures["frames"] == shape[0] and len(table.split("\n")) == 1 + shape[0]
    assert all(map(math.isfinite, figures.values())) and "nan" not in report


def test_frames_that_are_no_numbers_are_left_out():
    images = moving(5)
    images[2] = math.nan
    embeds = torch.eye(5)[:, :3] + 1
    embeds[2] = math.nan
    report, _, figures = measure(images, moving(5) * 0.9, embeds)
    assert "frame 2 of images hold" in report and "--fp32-vae" in report
    rest = [0, 1, 3, 4]
    assert figures["frame_consistency"] == pytest.approx(frame_consistency(embeds[rest])[0])
    assert figures["psnr"] == pytest.approx(metrics.psnr(images, moving(5) * 0.9)[rest].mean().item())


def test_a_figure_that_fails_takes_no_other_away(monkeypatch):
    def fail(*args):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(figures_report, "follow", fail)
    report, _, figures = measure(moving(3), moving(3) * 0.9, torch.ones(3, 4))
    assert "Motion could not be measured (RuntimeError: out of luck)" in report
    assert figures.keys() == {"frames", "frame_consistency", "neighbour_consistency", "psnr"}


def test_grey_is_measured_as_grey():
    grey = moving(3)[..., :1]
    assert measure(grey, grey * 0.9)[2] == measure(grey.repeat(1, 1, 1, 3), grey.repeat(1, 1, 1, 3) * 0.9)[2]


@pytest.mark.parametrize(
    ("source", "images", "left_top"),
    [
        ((480, 854), (480, 848), (3, 0)),
        ((540, 960), (536, 960), (0, 2)),
        ((300, 500), (296, 496), (2, 2)),
        ((66, 66), (64, 64), (1, 1)),
        ((480, 854), (480, 832), (11, 0)),
        ((480, 854), (480, 854), (0, 0)),
        ((480, 854), (480, 840), None),
        ((480, 848), (480, 854), None),
        ((512, 512), (256, 256), None),
    ],
)
def test_a_source_is_cut_as_vae_encode_cuts_it(source, images, left_top):
    clip = torch.rand(1, *source, 3)
    cut = metrics.cropped_as_encoded(clip, torch.zeros(1, *images, 3))
    left, top = left_top or (0, 0)
    height, width = images if left_top else source
    assert torch.equal(cut, clip[:, top : top + height, left : left + width])


def test_motion_is_on_the_255_scale():
    frames = torch.tensor([0.0, 0.0, 1.0, 0.8]).view(4, 1, 1, 1).expand(4, 3, 6, 6)
    assert metrics.motion(frames).tolist() == pytest.approx([0, 255, 51], abs=1e-3)


@pytest.mark.parametrize("size, expected", [((512, 512), (256, 256)), ((720, 1280), (144, 256)), ((64, 48), (64, 48))])
def test_shrink_bounds_the_longest_side(size, expected):
    frames = metrics.shrink(torch.full((2, *size, 4), 0.25))
    assert frames.shape == (2, 3, *expected)
    assert torch.allclose(frames, torch.tensor(0.25))


# ---- flow ----


@pytest.mark.parametrize("size", [(64, 64), (63, 101), (144, 256)])
@pytest.mark.parametrize("shift", [(0.3, -0.6), (1.0, 0.0), (3.5, 2.25)])
def test_flow_finds_known_translations(size, shift):
    first, second = texture(*size), texture(*size, *shift)
    flow, back = estimate_flow(first, second), estimate_flow(second, first)
    mask = followed(flow, back)
    error = (flow - torch.tensor(shift).view(1, 2, 1, 1)).norm(dim=1, keepdim=True)
    assert mask.float().mean() > 0.8
    assert error.median() < 0.15 and error[mask].mean() < 0.2  # px; measured 0.02 to 0.12 and 0.03 to 0.14


def test_flow_reaches_far_on_a_large_picture():
    first, second = texture(256, 256), texture(256, 256, 15, -7)
    error = (estimate_flow(first, second) - torch.tensor([15.0, -7.0]).view(1, 2, 1, 1)).norm(dim=1)
    assert error.median() < 0.15


def test_flow_follows_parts_that_move_apart():
    left, right = texture(64, 128, 2, 0)[..., :64], texture(64, 128, -2, 0)[..., 64:]
    flow = estimate_flow(texture(64, 128), torch.cat([left, right], dim=-1))[0, 0]
    assert flow[8:-8, 12:48].mean().item() == pytest.approx(2, abs=0.2)
    assert flow[8:-8, 80:-12].mean().item() == pytest.approx(-2, abs=0.2)


def painted(hue, left, size=(48, 64), ground=(0.3, 0.3, 0.3), side=16):
    """A flat square whose left edge is at column `left`, on a flat ground."""
    picture = torch.tensor(ground).view(1, 3, 1, 1).repeat(1, 1, *size)
    picture[:, :, 16 : 16 + side, left : left + side] = torch.tensor(hue).view(1, 3, 1, 1)
    return picture


@pytest.mark.parametrize("hue", [(0.9, 0.9, 0.9), (0.6, 0.1467, 0.3)], ids=["brighter", "another hue, as bright"])
def test_flow_follows_a_flat_object_and_leaves_its_ground(hue):
    assert torch.tensor(hue) @ torch.tensor([0.299, 0.587, 0.114]) == pytest.approx(
        0.9 if hue[0] > 0.8 else 0.3, abs=1e-3
    )
    first, second = painted(hue, 20), painted(hue, 23)
    flow, back = estimate_flow(first, second), estimate_flow(second, first)
    assert flow[0, 0, 18:30, 22:34].mean().item() == pytest.approx(3, abs=0.3)
    assert flow[0, :, :, 54:].abs().max() == 0  # far from it nothing is seen to move
    assert followed(flow, back).float().mean() > 0.7


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (16, 16), (31, 33)])
def test_flow_of_a_still_is_zero_at_any_size(size):
    frames = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    flow = estimate_flow(frames, frames)
    assert flow.shape == (2, 2, *size)
    assert flow.abs().max() < 1e-4 and followed(flow, flow).all()


def test_warp_reads_where_the_flow_points():
    frames = torch.arange(12.0).view(1, 1, 3, 4)
    flow = torch.zeros(1, 2, 3, 4)
    flow[:, 0] = 1
    assert torch.allclose(warp(frames, flow)[..., :-1], frames[..., 1:], atol=1e-4)


def test_pixels_that_leave_or_do_not_come_back_are_not_followed():
    flow = torch.zeros(1, 2, 8, 8)
    flow[:, 0] = 3
    assert followed(flow, -flow)[0, 0].float().mean() == 5 / 8  # three columns leave to the right
    assert not followed(flow, flow).any()


def test_warp_error_of_a_still_is_zero_and_of_flicker_is_not():
    still = texture(48, 64).expand(4, 3, 48, 64)
    flow, mask = metrics.follow(still)
    flicker = still * torch.tensor([1.0, 0.9, 1.0, 0.9]).view(4, 1, 1, 1)
    assert metrics.warp_error(still, flow, mask).max() < 1e-3
    assert metrics.warp_error(flicker, flow, mask).min() > 5


def test_warp_error_takes_motion_away():
    frames = metrics.shrink(moving(3))
    left = metrics.warp_error(frames, *metrics.follow(frames))
    assert (left < 0.1 * metrics.motion(frames)).all()


def test_warp_error_counts_the_mask_only():
    frames = torch.zeros(2, 3, 4, 6)
    frames[1, ..., :3] = 1  # the left half lights up
    mask = torch.zeros(1, 1, 4, 6, dtype=torch.bool)
    mask[..., 2:] = True  # one of four columns counted is lit
    assert metrics.warp_error(frames, torch.zeros(1, 2, 4, 6), mask).item() == pytest.approx(255 / 4)
    assert metrics.warp_error(frames, torch.zeros(1, 2, 4, 6), ~mask).item() == pytest.approx(255)
    assert metrics.warp_error(frames, torch.zeros(1, 2, 4, 6), mask & ~mask).isnan().all()


def test_the_source_guides_the_warp_error():
    still = moving(1).expand(3, -1, -1, -1)
    alone, guided = (measure(still, source)[2] for source in (None, moving(3)))
    assert alone["warp_error"] < 1e-3
    assert guided["warp_error"] > 5 * guided["source_warp_error"]  # frozen where the source moves


def test_follow_in_parts_equals_the_whole(monkeypatch):
    frames = metrics.shrink(moving(6))
    whole = metrics.follow(frames)
    monkeypatch.setattr(metrics, "PAIRS_AT_ONCE", 2)
    parts = metrics.follow(frames)
    assert torch.allclose(whole[0], parts[0], atol=1e-4) and torch.equal(whole[1], parts[1])


# ---- the report ----


def full_measure(images, source):
    g = torch.Generator().manual_seed(0)
    embeds, source_embeds = torch.rand(2, len(images), 16, generator=g)
    return measure(images, source, embeds, source_embeds, torch.rand(16, generator=g))


def test_measure_reports_every_figure_beside_the_sources():
    source = moving(4)
    report, table, figures = full_measure((source + 0.1).clamp(0, 1), source)
    assert set(figures) == {
        "frames",
        "frame_consistency",
        "neighbour_consistency",
        "text_alignment",
        "motion",
        "warp_error",
        "source_frame_consistency",
        "source_neighbour_consistency",
        "source_text_alignment",
        "source_motion",
        "source_warp_error",
        "followed_percent",
        "psnr",
    }
    assert all(isinstance(v, float) and math.isfinite(v) for v in figures.values())
    for key in set(figures) - {"frames"}:
        assert f"{figures[key]:.2f}" in report
    rows = [line.split("\t") for line in table.split("\n")]
    assert len(rows) == 5 and {len(row) for row in rows} == {len(rows[0])}
    assert set(rows[0]) == set(figures) - {"frames"} | {"frame"}


def test_table_columns_average_to_the_figures():
    _, table, figures = full_measure(moving(4) * 0.9, moving(4))
    names, *rows = (line.split("\t") for line in table.split("\n"))
    assert rows[0][names.index("motion")] == ""  # no frame before the first
    for column, name in enumerate(names[1:], start=1):
        values = [float(row[column]) for row in rows if row[column]]
        assert sum(values) / len(values) == pytest.approx(figures[name], abs=1e-3)


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: measure(moving(1), moving(1), torch.ones(1, 4)), "at least two frames"),
        (lambda: measure(moving(3), moving(3)), "3 of 3 frames equal the source"),
        (lambda: measure(moving(1).expand(3, -1, -1, -1), moving(3), torch.ones(3, 4)), "hardly moves"),
        (lambda: measure(moving(2), None, torch.eye(4)[:2], None, torch.eye(4)[3]), "two halves of one CLIP"),
        (
            lambda: measure(moving(2), notes=("text alignment needs a CLIP",)),
            "Note: text alignment needs a CLIP",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_in_words(make, words):
    report, _, figures = make()
    assert words in report and "nan" not in report and "inf." not in report
    assert all(map(math.isfinite, figures.values()))


def test_a_good_clip_gets_no_warning():
    assert "Note" not in full_measure(moving(3) * 0.95, moving(3))[0]


def test_images_are_left_as_they_were():
    images, source = moving(3), moving(3) * 0.5
    before = images.clone(), source.clone()
    full_measure(images, source)
    assert torch.equal(images, before[0]) and torch.equal(source, before[1])


def test_an_alpha_channel_is_left_out():
    images = moving(3)
    with_alpha = torch.cat([images, torch.rand(3, 48, 64, 1)], dim=-1)
    assert measure(with_alpha, images * 0.9)[2] == measure(images, images * 0.9)[2]


def test_half_precision_clips_are_measured():
    images = moving(3)
    exact, rounded = (measure(clip, images)[2] for clip in (images * 0.9, (images * 0.9).half()))
    assert rounded["motion"] == pytest.approx(exact["motion"], rel=0.01)


def of_all(dx, dy, frames=4, size=(24, 40), agrees=None):
    """A Flow of one motion in all frames: back to the frame before it."""
    back = torch.tensor([dx, dy]).view(1, 2, 1, 1).expand(frames - 1, -1, *size).float()
    agrees = torch.ones(frames - 1, 1, *size, dtype=torch.bool) if agrees is None else agrees
    return Flow(-back, back, agrees, agrees, "mine")


def sliding(frames=4, size=(24, 40)):
    """Two pixels to the right a frame."""
    wide = torch.rand(size[0], size[1] + 2 * frames, 3, generator=torch.Generator().manual_seed(5))
    starts = (2 * (frames - i) for i in range(frames))
    return torch.stack([wide[:, start : start + size[1]] for start in starts])


def test_a_wired_flow_is_the_guide():
    inner = torch.zeros(3, 1, 24, 40, dtype=torch.bool)
    inner[..., 4:] = True
    report, _, figures = measure(sliding(), flow=of_all(-2, 0, agrees=inner))
    assert figures["warp_error"] < 0.01 < figures["motion"] and figures["followed_percent"] == 90
    assert "once the motion by mine is undone" in report and "Note" not in report
    wrong = measure(sliding(), flow=of_all(2, 0, agrees=inner))[2]
    assert wrong["warp_error"] > 20
    both = measure(sliding(), sliding() * 0.9, flow=of_all(-2, 0, agrees=inner))[2]
    assert both["source_warp_error"] < 0.01


def test_a_wired_flow_is_scaled_and_cut_with_the_clip():
    flow, mask = given_motion(of_all(-8, 4, size=(24, 44)), torch.rand(4, 24, 40, 3), (12, 10))
    assert flow.shape == (3, 2, 12, 10) and flow[:, 0].unique().tolist() == [-2] and flow[:, 1].unique().tolist() == [2]
    assert mask.all()


@pytest.mark.parametrize("clip", [torch.rand(5, 24, 40, 3), torch.rand(4, 32, 40, 3)])
def test_the_flow_of_another_clip_is_left_out(clip):
    report, _, figures = measure(clip, flow=of_all(-2, 0))
    assert "the flow that is wired in is left out: flow is of 4 frames of 40x24" in report
    assert figures == measure(clip)[2]
