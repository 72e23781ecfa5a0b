"""EI² Video Metrics stands beside Save Video: whatever is wired, it gives a report."""

from types import SimpleNamespace

import comfy.model_management
import comfy.sd
import pytest
import torch

from tools.server.in_process import pack

from .mini import run

NODE = "video_metrics.VideoMetrics"


def film(frames=3, height=48, width=64, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(frames, height, width, channels, generator=generator)


class Vision:
    """CLIP_VISION of random projections; gives: what stands in the place of its image embeddings."""

    def __init__(self, width=6, gives=None):
        self.projection, self.gives = torch.randn(3, width, generator=torch.Generator().manual_seed(1)), gives

    def encode_image(self, image, crop=True):
        assert image.shape[-1] == 3
        return {"image_embeds": self.gives(image) if self.gives else image.mean((1, 2)) @ self.projection}


class Text:
    """CLIP whose pooled text is projected to `width`."""

    def __init__(self, width=6):
        projection = torch.nn.Linear(4, width, bias=False)
        torch.nn.init.normal_(projection.weight)
        encoder = SimpleNamespace(transformer=SimpleNamespace(text_projection=projection.requires_grad_(False)))
        self.cond_stage_model = SimpleNamespace(clip_l=encoder)

    def tokenize(self, text):
        return text

    def encode_from_tokens(self, tokens, return_pooled):
        return None, torch.ones(1, 4)


class Broken:
    """Anything of it raises."""

    def __init__(self, error):
        self.error = error

    def __getattr__(self, name):
        raise self.error


def report_of(**inputs):
    """(report, table) and the figures."""
    module = pack("nodes.video_metrics").VideoMetrics
    found = module.execute(**inputs)
    return found.args[0], found.ui["metrics"][0]


@pytest.mark.parametrize("size", [(480, 854), (540, 960), (300, 500), (481, 641), (7, 23), (64, 64)])
def test_the_source_is_cut_as_the_host_encodes_it(size):
    """comfy.sd.VAE itself says what is left of a clip of that size."""
    source = film(2, *size)
    vae = SimpleNamespace(
        crop_input=True, spacial_compression_encode=lambda: 8, output_channels=3, pad_channel_value=None
    )
    encoded = comfy.sd.VAE.vae_encode_crop_pixels(vae, source)
    cut = pack("ei2_modules.metrics.figures").cropped_as_encoded(source, encoded)
    assert torch.equal(cut, encoded)


def test_a_clip_of_odd_size_has_all_figures():
    source = film(2, 60, 86)
    report, figures = report_of(images=source[:, 2:58, 3:83] * 0.9, source=source)
    assert figures["psnr"] > 20 and "its middle 80x56" in report


def test_everything_wired_that_fits():
    report, figures = report_of(images=film(), source=film() * 0.9, clip_vision=Vision(), clip=Text(), prompt="a cat")
    assert {"frame_consistency", "source_frame_consistency", "text_alignment", "psnr"} <= figures.keys()
    assert "could not" not in report and "left out" not in report


SEEN, WRITTEN = {"frame_consistency"}, {"text_alignment"}
ASKED = {"clip_vision": Vision(), "clip": Text(), "prompt": "a cat"}
FAULTS = {
    "no CLIP vision": (ASKED | {"clip_vision": None}, "connect one to clip_vision", SEEN | WRITTEN),
    "no CLIP": (ASKED | {"clip": None}, "connect one to clip", WRITTEN),
    "another CLIP": (ASKED | {"clip": Text(5)}, "6 wide and the text embeddings of clip 5", WRITTEN),
    "CLIP vision raises": (
        {"clip_vision": Broken(RuntimeError("no kernel"))},
        "Frame consistency could not be measured (RuntimeError: no kernel)",
        SEEN,
    ),
    "CLIP vision out of memory": (
        {"clip_vision": Broken(comfy.model_management.OOM_EXCEPTION("x"))},
        "could not be measured (not enough memory)",
        SEEN,
    ),
    "no embedding": ({"clip_vision": Vision(gives=lambda image: None)}, "gives image embeddings none", SEEN),
    "an embedding of tokens": (
        {"clip_vision": Vision(gives=lambda image: torch.zeros(len(image), 7, 6))},
        "of shape (3, 7, 6)",
        SEEN,
    ),
    "CLIP raises": (
        ASKED | {"clip": Broken(KeyError("t5xxl"))},
        "Text alignment could not be measured (KeyError: 't5xxl')",
        WRITTEN,
    ),
    "source is no image": (ASKED | {"source": {"samples": 0}}, "source is no IMAGE", {"psnr"}),
    "source has other frames": (ASKED | {"source": film(5)}, "the same 3 frames", {"psnr"}),
    "source has another size": (ASKED | {"source": film(3, 96, 64)}, "to 64x48", {"psnr"}),
    "prompt is no text": (ASKED | {"prompt": None}, "Motion", WRITTEN),
}


@pytest.mark.parametrize("inputs, words, missing", FAULTS.values(), ids=FAULTS)
def test_a_figure_that_cannot_be_given_is_left_out(inputs, words, missing):
    report, figures = report_of(**({"images": film()} | inputs))
    assert words in report
    assert not missing & figures.keys() and figures["motion"] > 0
    assert "frame_consistency" in missing or "frame_consistency" in figures


def test_the_hosts_interrupt_passes():
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run(NODE, images=film(), clip_vision=Broken(comfy.model_management.InterruptProcessingException()))


def test_grey_frames_are_seen_by_clip():
    assert "frame_consistency" in report_of(images=film(channels=1), clip_vision=Vision())[1]


@pytest.mark.parametrize("images", [None, torch.zeros(48, 64, 3), {"samples": torch.zeros(1, 4, 8, 8)}])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(pack("ei2_modules.errors").EI2Error, match="images is no IMAGE"):
        run(NODE, images=images, clip_vision=Vision())
