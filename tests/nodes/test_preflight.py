"""Before step 0: what a tuning will need, what is chosen and refused by it, and what the message advises."""

import re
from dataclasses import replace

import comfy.model_management
import comfy.ops
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

from benchmarks.common import base_models

from .mini import clip, inflate, model, pack, tune

preflight, unet = pack("nodes.host.tuning.preflight"), pack("nodes.host.inflating.unet")
EI2Error = pack("ei2_modules.errors").EI2Error
GIB = 2**30
SD15 = preflight.Demand(8, 64, 64, torch.float32, False, 320, 2820, 0, 12 * 74_354_880)


@pytest.fixture
def free(monkeypatch):
    """Sets the free memory."""
    return lambda size: monkeypatch.setattr(preflight.mm, "get_free_memory", lambda device: int(size))


@pytest.mark.parametrize(
    "changes, least, most",
    [({}, 16.0, 16.8), ({"checkpointing": True}, 3.9, 4.3), ({"dtype": torch.bfloat16}, 8.3, 9.0),
     ({"frames": 16}, 33, 36), ({"height": 32, "width": 32}, 4.6, 4.9),
     ({"frames": 24, "height": 24, "width": 24}, 8.3, 9.0),
     ({"frames": 24, "height": 24, "width": 24, "checkpointing": True}, 2.2, 2.6)],
)  # fmt: skip
def test_the_estimate_of_sd15(changes, least, most):
    """Measured in fp32, without and with checkpointing: 8 frames of 256x256 4.04 and 0.99 GiB, 24 of 192x192 7.99 and
    1.81. Of the optimiser's 0.83 GiB, 0.55 come on top."""
    assert least < replace(SD15, **changes).bytes / GIB < most


# By hand: blocks of a level times its channels and its share of the pixels.
SHAPES = {
    "sd15": 5 * 320 + 5 * 640 / 4 + 5 * 1280 / 16 + 1280 / 64,
    "sdxl": 2 * 5 * 640 / 4 + (10 * 5 + 10) * 1280 / 16,
}


@pytest.mark.parametrize("family, channels", SHAPES.items())
def test_channels_of_the_transformer_blocks(family, channels):
    config = {**base_models.FAMILIES[family][1], "operations": comfy.ops.disable_weight_init, "device": "meta"}
    assert unet.attended_channels(UNetModel(**config)) == channels


# free bytes as a share of what is needed without checkpointing -> whether "auto" checkpoints
CHOICES = [("auto", 2.0, False), ("auto", 0.9, True), ("auto", 1.3, False), ("off", 0.9, False), ("on", 2.0, True)]


@pytest.mark.parametrize("choice, share, expected", CHOICES)
def test_checkpointing_is_chosen_by_what_is_free(free, choice, share, expected):
    free(share * SD15.bytes)
    assert SD15.choose(choice, torch.device("cpu")).checkpointing == expected


REFUSED = {
    "off": ("off", 10, r"16.4 GiB for a step, and 10.0 GiB are free.*gradient_checkpointing to on \(4.* GiB\).*bf16"),
    "auto": ("auto", 2, r"gradient checkpointing on, need about 4.* set window to 2 frames"),
    "on": ("on", 2, r"set window to 2 frames, or make the frames \d+x\d+"),
}


@pytest.mark.parametrize("choice, size, words", REFUSED.values(), ids=REFUSED)
def test_what_cannot_fit_is_refused_with_a_change_that_fits(free, choice, size, words):
    free(size * GIB)
    with pytest.raises(EI2Error, match=words) as error:
        SD15.choose(choice, torch.device("cpu"))
    text = str(error.value)
    lean = replace(SD15, checkpointing=choice != "off")
    fewer, width = (
        int(re.search(r"set window to (\d+) frames", text)[1]),
        int(re.search(r"make the frames (\d+)x", text)[1]),
    )
    assert replace(lean, frames=fewer).bytes <= size * GIB < replace(lean, frames=fewer + 1).bytes
    assert replace(lean, height=width // 8, width=width // 8).bytes <= size * GIB
    assert f"make the frames {width}x{width}" in text, "the shape stays"


def test_nothing_is_advised_that_is_so_already():
    lean = replace(SD15, checkpointing=True, dtype=torch.bfloat16)
    assert "checkpointing" not in lean.advice(GIB) and "bf16" not in lean.advice(GIB)
    assert "close other programs" in replace(lean, frames=1, height=1, width=1).advice(0)


@pytest.mark.parametrize("choice", ["auto", "on", "off"])
def test_the_node_does_as_chosen_and_refuses_before_step_0(free, monkeypatch, choice):
    training, chosen = pack("nodes.host.tuning.run"), []
    original = training.computing_with
    monkeypatch.setattr(training, "computing_with", lambda *args: chosen.append(args[-1]) or original(*args))
    free(6 * 2**20)  # too little for a step of the miniature, enough with checkpointing
    if choice == "off":
        with pytest.raises(EI2Error, match=r"are free.* set gradient_checkpointing to on"):
            tune(inflate(model()), steps=1, gradient_checkpointing=choice)
        assert chosen == []
    else:
        tune(inflate(model()), steps=1, gradient_checkpointing=choice)
        assert chosen == [True]


def test_what_is_to_come_is_said(monkeypatch):
    training, told = pack("nodes.host.tuning.run"), []
    monkeypatch.setattr(training, "say", told.append)
    tune(inflate(model()), clip(3, 8, 16), steps=4)
    (text,) = told
    assert text.startswith("3 frames of 128x64, float32, gradient checkpointing off, need about 0.0 of ")
    assert re.search(r"GiB a step, and \d+ s for 4 steps, both give or take a third$", text)


@pytest.mark.parametrize("checkpointing, words", [(False, "50 s for 10 steps"), (True, "74 s for 10 steps")])
def test_the_time_said_is_that_of_the_passes_a_step_takes(free, checkpointing, words):
    """A pass of 2 s, and 2.5 or 3.7 passes a step."""
    free(2**40)
    demand = replace(SD15, checkpointing=checkpointing)
    assert words in preflight.announce(demand, steps=10, forward_seconds=2.0, device=torch.device("cpu"))


@pytest.mark.parametrize("choice, advised", [("off", True), ("auto", True), ("on", False)])
def test_out_of_memory_says_what_to_change(monkeypatch, choice, advised):
    def full(*args):
        raise comfy.model_management.OOM_EXCEPTION("CUDA out of memory")

    monkeypatch.setattr(pack("nodes.host.tuning.guider").TuningGuider, "denoise", full)
    with pytest.raises(EI2Error, match=r"Out of memory while tuning 3 frames of 64x64.*To fit: ") as error:
        tune(inflate(model()), gradient_checkpointing=choice)
    assert ("set gradient_checkpointing to on" in str(error.value)) == advised


@pytest.mark.parametrize("seconds, words", [(12.3, "12 s"), (150, "2 min"), (7200, "2.0 h")])
def test_durations(seconds, words):
    assert preflight.duration(seconds) == words
