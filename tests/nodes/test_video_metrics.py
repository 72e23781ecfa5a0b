"""EI² Video Metrics on the real host: a figure that it cannot give is left out with a word, and never stops a graph."""

from types import SimpleNamespace

import comfy.model_management
import pytest
import torch

from .mini import run


def fails(*args, **kwargs):
    raise RuntimeError("size mismatch")


def clip_vision(width=8):
    return SimpleNamespace(encode_image=lambda images, crop: {"image_embeds": torch.rand(len(images), width)})


BROKEN = SimpleNamespace(encode_image=fails, tokenize=fails)
FRAMES = torch.rand(3, 40, 48, 3)
CUT = torch.rand(3, 43, 54, 3)

# inputs, what the report says
CASES = {
    "the source as it is": ({"source": FRAMES}, "PSNR to the source"),
    "VAE Encode cut it": ({"source": CUT}, "the source was cut from 54x43 to 48x40"),
    "other frames": ({"source": FRAMES[:2]}, "source has 2 frames at 48x40, images 3 frames at 48x40"),
    "another size": ({"source": FRAMES[:, :20]}, "resize or crop the source"),
    "one frame": ({"images": FRAMES[:1]}, "need at least two frames"),
    "one frame beside a clip": ({"images": FRAMES[:1], "source": FRAMES}, "Its figures are left out"),
    "a pixel": ({"images": FRAMES[:, :1, :1]}, "of 3 frames at 1x1"),
    "values that are no numbers": ({"images": FRAMES * torch.nan}, "of 3 frames at 48x40"),
    "with alpha": ({"images": torch.rand(3, 40, 48, 4), "source": FRAMES}, "PSNR to the source"),
    "CLIP vision fails": ({"clip_vision": BROKEN}, "Frame consistency could not be measured (RuntimeError: size mis"),
    "CLIP fails": (
        {"clip_vision": clip_vision(), "clip": BROKEN, "prompt": "x"},
        "Text alignment could not be measured",
    ),
    "no CLIP": ({"clip_vision": clip_vision(), "prompt": "x"}, "connect one to clip"),
}


@pytest.mark.parametrize("inputs, words", CASES.values(), ids=CASES)
def test_what_cannot_be_measured_is_left_out_with_a_word(inputs, words):
    report, table = run("video_metrics.VideoMetrics", **({"images": FRAMES} | inputs))
    assert words in report
    assert table.startswith("frame\t") or "could not be measured" in report


def test_the_cut_source_gives_all_figures():
    report, _ = run("video_metrics.VideoMetrics", images=CUT[:, 1:41, 3:51], source=CUT)
    assert "PSNR to the source: not measurable" in report and "3 of 3 frames equal the source" in report


def test_a_cancel_is_not_swallowed():
    def cancelled(*args, **kwargs):
        raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run("video_metrics.VideoMetrics", images=FRAMES, clip_vision=SimpleNamespace(encode_image=cancelled))
