"""What has no effect, or less than it seems, is said: once for a model in the log, and in an inversion's report."""

import logging

import pytest
import torch
from comfy_extras.nodes_differential_diffusion import DifferentialDiffusion

import nodes as host_nodes

from .mini import (
    caption,
    clip,
    controlled,
    controlnet,
    custom_advanced,
    hints,
    inflate,
    invert,
    model,
    run,
    sample,
    tune,
)
from .other_nodes import run_node

FRAMES = 4


def rows(count):
    return [[torch.randn(count, 77, 64, generator=torch.Generator().manual_seed(0)), {}]]


def masks(count):
    return host_nodes.ConditioningSetMask().append(caption(), torch.ones(count, 64, 64), "default", 1.0)[0]


def hinted(*counts):
    return controlled(*((controlnet(), hints(range(count))) for count in counts))[0]


UNFITTING = {
    "rows left over": (lambda: rows(6), ["6 text embeddings for 4 frames: text embeddings 5 to 6 are not used"]),
    "one row left over": (lambda: rows(5), ["5 text embeddings for 4 frames: text embedding 5 is not used"]),
    "too few rows": (lambda: rows(3), ["3 text embeddings for 4 frames: they go round, so that frame 4 has text em"]),
    "masks": (lambda: masks(2), ["2 masks for 4 frames: they go round, so that frame 3 has mask 1 again"]),
    "hints": (lambda: hinted(3), ["3 hints for 4 frames: they go round"]),
    "hints of two": (lambda: hinted(3, 6), ["3 hints for 4 frames: they go", "6 hints for 4 frames: hints 5 to 6 are"]),
    "one for all": (lambda: rows(1), []),
    "a hint for all": (lambda: hinted(1), []),
    "one for each": (lambda: hinted(FRAMES), []),
}


def said(caplog, part):
    return sum(part in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("text", "lines"), UNFITTING.values(), ids=UNFITTING)
def test_rows_that_do_not_fit_the_frames(text, lines, caplog):
    """Of the tuning's caption too, and of a stock sampler's negative."""
    m, logged = inflate(model()), "conditioning has"
    with caplog.at_level(logging.WARNING):
        report = invert(m, clip(FRAMES), text(), steps=2)[1]
    assert said(caplog, logged) == report.count(logged) == len(lines)
    for line in lines:
        assert said(caplog, f"EI²: The positive conditioning has {line}") == 1
        assert f"note: The positive conditioning has {line}" in report
    with caplog.at_level(logging.WARNING):
        host_nodes.common_ksampler(m, 0, 1, 2.0, "euler", "normal", caption(), text(), clip(FRAMES))
    assert said(caplog, "The negative conditioning has") == len(lines)
    if "mask" not in text()[0][1]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            tune(m, clip(FRAMES), text(), steps=1)
        assert said(caplog, "The positive conditioning has") == len(lines)


WAYS = {
    "EI² Sampler": sample,
    "EI² DDIM Sampler": lambda m, latent: custom_advanced(
        m, latent, *run("sampler.EI2DDIMSampler", model=m, latent=latent, seed=0, eta=0.0)[:2]
    ),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize(("value", "times"), [(0.0, 1), (0.5, 0)])
def test_an_empty_noise_mask(value, times, way, caplog):
    m = inflate(model())
    noise = invert(m)[0]
    with caplog.at_level(logging.WARNING):
        way(m, host_nodes.SetLatentNoiseMask().set_mask(noise, torch.full((1, 64, 64), value))[0])
    assert said(caplog, "the noise mask is 0 everywhere, so nothing is edited") == times


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("masked", [True, False])
def test_differential_diffusion(masked, way, caplog):
    """Without a mask it has nothing to do anyway."""
    m = inflate(model())
    noise = invert(m)[0]
    if masked:
        noise = host_nodes.SetLatentNoiseMask().set_mask(noise, torch.full((1, 64, 64), 0.5))[0]
    with caplog.at_level(logging.WARNING):
        way(run_node(DifferentialDiffusion, m), noise)
    assert said(caplog, "Differential Diffusion has no effect here") == masked


@pytest.mark.parametrize(("frames", "times"), [(1, 1), (4, 0), (5, 0)])
def test_fewer_frames_than_were_tuned_on(frames, times, caplog):
    """As of grids."""
    tuned = tune(inflate(model()), clip(FRAMES))[0]
    with caplog.at_level(logging.WARNING):
        invert(tuned, clip(frames, 16, 16))
    assert said(caplog, f"was tuned on 4 frames and samples {frames}") == times
