"""The host's progress bar and latent preview, for loops of several passes."""

import logging
import sys

import comfy.model_management as mm
import comfy.utils
import latent_preview
import torch
from comfy_execution.utils import get_executing_context
from PIL import Image

from . import memory


def say(text: str) -> None:
    """To the log, and into the node that is running."""
    logging.info("EI²: %s", text)
    show_text(text)


def show_text(text: str) -> None:
    """In the node that is running, where a server is."""
    running, server = get_executing_context(), sys.modules.get("server")  # importing it would start half of one
    if running is not None and server is not None:
        server.PromptServer.instance.send_progress_text(text, running.node_id)


class Progress:
    """One bar over all passes of a node; each pass gets its own sampler callback."""

    def __init__(self, model, total: int):
        self.bar = comfy.utils.ProgressBar(total)
        self.total, self.done = total, 0
        self.previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def callback(self):
        """For `CFGGuider.sample`: (step, x0, x, total) moves the bar and shows x0."""

        def step(i, denoised, x, total):
            self.advance(denoised)

        return step

    def advance(self, latent=None, image=None) -> None:
        """One step further. latent: a clip to preview in the model's scale; image: a PIL image instead."""
        self.done += 1
        preview = None
        if image is not None:
            preview = ("JPEG", image, 512)
        elif latent is not None and self.previewer is not None:
            preview = self.previewer.decode_latent_to_preview_image("JPEG", latent)
        self.bar.update_absolute(self.done, self.total, preview)


class TuningProgress:
    """A bar for tuning, with a picture of the middle frame now and then."""

    PREVIEWS = 10  # a run: one costs at most two forward passes and one decoded frame

    def __init__(self, model, steps: int, vae, done: int = 0):
        self.progress, self.vae = Progress(model, steps), vae
        self.progress.done = done
        self.every = max(1, steps // self.PREVIEWS)
        self.to_latent = model.model.process_latent_out

    def step(self, step, estimate) -> None:
        """For `TuningRun.execute`; raises the host's interrupt."""
        mm.throw_exception_if_processing_interrupted()
        if step.number % self.every:
            return self.progress.advance()
        middle = estimate()
        middle = middle[len(middle) // 2][None]
        if self.vae is None or not memory.room_to_decode(self.vae, middle.shape):
            return self.progress.advance(latent=middle)
        with torch.no_grad():
            image = self.vae.decode(self.to_latent(middle.float()))
        return self.progress.advance(image=to_pil(image.reshape(-1, *image.shape[-3:])[0]))


def to_pil(image: torch.Tensor) -> Image.Image:
    """(h, w, 3) in 0..1 -> PIL."""
    return Image.fromarray((image.clamp(0, 1) * 255).byte().cpu().numpy())
