"""The host's progress bar and latent preview, for loops of several passes."""

import logging
import sys
from collections.abc import Callable

import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context
from PIL import Image


def say(text: str) -> None:
    """To the log, and into the node that is running."""
    logging.info("EI²: %s", text)
    show_text(text)


def warn(text: str) -> None:
    """As `say`, of what may not be meant."""
    logging.warning("EI²: %s", text)
    show_text(text)


def show_text(text: str) -> None:
    """In the node that is running, where a server is."""
    running, server = get_executing_context(), sys.modules.get("server")  # importing it would start half of one
    if running is not None and server is not None:
        server.PromptServer.instance.send_progress_text(text, running.node_id)


class Progress:
    """One bar over all passes of a node; each pass gets its own sampler callback."""

    def __init__(self, model: ModelPatcher, total: int, done: int = 0):
        self.bar = comfy.utils.ProgressBar(total)
        self.total, self.done = total, done
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self) -> Callable:
        """For `CFGGuider.sample`: (step, x0, x, total) moves the bar and shows x0."""

        def step(i, denoised, x, total):
            self.advance(denoised)

        return step

    def advance(self, latent: torch.Tensor | None = None, image: Image.Image | None = None) -> None:
        """One step further. latent: a clip to preview in the model's scale; image: a PIL image instead."""
        self.done += 1
        preview = None
        if image is not None:
            preview = ("JPEG", image, 512)
        elif latent is not None and self.previewer is not None:
            preview = self.previewer.decode_latent_to_preview_image("JPEG", latent)
        self.bar.update_absolute(self.done, self.total, preview)

    def rough(self, latent: torch.Tensor) -> Image.Image | None:
        """The host's preview of one frame, (1, c, h, w), where the user has switched previews on."""
        return None if self.previewer is None else self.previewer.decode_latent_to_preview(latent)


def to_pil(image: torch.Tensor) -> Image.Image:
    """(h, w, 3) in 0..1 -> PIL."""
    return Image.fromarray((image.clamp(0, 1) * 255).byte().cpu().numpy())
