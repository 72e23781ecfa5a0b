"""ComfyUI-VideoHelperSuite: its animated previews take the place of the host's previewer."""

import pytest
import torch

from tools.server.in_process import host

from ...nodes.mini import clip, inflate, invert, model, sample, tune

EXTRA = {"VHS_latentpreview": True, "VHS_latentpreviewrate": 100}


@pytest.fixture
def animated(monkeypatch):
    """Previews on, in a workflow that asks for animated ones."""
    server = host("server").PromptServer.instance
    running = {0: (0, "prompt", {}, {"extra_pnginfo": {"workflow": {"extra": EXTRA}}}, [])}
    queue = type("Queue", (), {"currently_running": running})()
    monkeypatch.setattr(server, "prompt_queue", queue, raising=False)
    monkeypatch.setattr(server, "last_node_id", "7", raising=False)
    arguments = host("comfy.cli_args")
    monkeypatch.setattr(arguments.args, "preview_method", arguments.LatentPreviewMethod.Latent2RGB)
    previewer = host("latent_preview").get_previewer(torch.device("cpu"), host("comfy.latent_formats").SD15())
    assert type(previewer).__name__ == "WrappedPreviewer", "its previews are not on"


@pytest.mark.parametrize("frames", [3, 20])
@pytest.mark.parametrize("work", ["tuning", "inversion", "sampling"])
def test_previews(animated, work, frames):
    """Animated previews, without a VAE: {work} of {frames} frames runs to its end"""
    m, latents = inflate(model()), clip(frames)
    if work == "tuning":
        assert len(tune(m, latents, steps=2, window=6, preview_every=1)[2]["loss"]) == 2
    else:
        noise = invert(m, latents, steps=2)[0]
        edit = sample(m, noise) if work == "sampling" else noise["samples"]
        assert edit.isfinite().all()


def test_picture_of_a_tuning(animated, monkeypatch):
    """Animated previews, without a VAE: the tuning shows source and sample"""
    shown = []
    monkeypatch.setattr(
        host("comfy.utils").ProgressBar,
        "update_absolute",
        lambda bar, value, total, preview=None: shown.append(preview),
    )
    tune(inflate(model()), steps=1, preview_every=1)
    assert shown[-1][1].height > 256, "pictures above the curve of losses"
