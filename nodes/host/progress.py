"""The host's progress bar and latent preview, for loops of several passes."""

import logging
import sys
from collections.abc import Callable

import comfy.model_management as mm
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context
from PIL import Image

from .attempt import attempt


def say(text: str) -> None:
    """To the log, and into the node that is running."""
    logging.info("EI²: %s", text)
    show_text(text)


def warn(text: str) -> None:
    """As `say`, of what may not be meant."""
    logging.warning("EI²: %s", text)
    show_text(text)


def show_text(text: str) -> None:
    """In the node that is running, where a server is; only to the page that runs it: others may show another graph."""
    running, server = get_executing_context(), sys.modules.get("server")  # importing it would start half of one
    if running is None or server is None:
        return
    watched = server.PromptServer.instance
    if watched.client_id is not None:
        attempt(
            "The text in the node is left out", watched.send_progress_text, text, running.node_id, watched.client_id
        )


class Progress:
    """One bar over all passes of a node; each pass gets its own sampler callback."""

    def __init__(self, model: ModelPatcher | None, total: int, done: int = 0):
        """model: None where no latents are to be previewed."""
        self.bar = comfy.utils.ProgressBar(total)
        self.total, self.done = total, done
        self.previewer = None
        if model is not None:
            of = model.load_device, model.model.latent_format
            self.previewer, _ = attempt("There are no previews", latent_preview.get_previewer, *of)

    def callback(self) -> Callable:
        """For `CFGGuider.sample`: (step, x0, x, total) moves the bar and shows x0."""

        def step(i, denoised, x, total):
            self.advance(denoised)

        return step

    def advance(self, latent: torch.Tensor | None = None, image: Image.Image | None = None, passes: int = 1) -> None:
        """So much further. latent: a clip to preview in the model's scale; image: a PIL image instead.

        Raises the host's interrupt, and nothing that other packs' bars and previewers raise.
        """
        self.advance_to(self.done + passes, latent, image)

    def advance_to(self, done: int, latent: torch.Tensor | None = None, image: Image.Image | None = None) -> None:
        """As `advance`, to a step that is counted elsewhere."""
        mm.throw_exception_if_processing_interrupted()
        self.done = done
        preview = None
        if image is not None:
            preview = ("JPEG", image, 512)
        elif latent is not None:
            preview = self._previewed("decode_latent_to_preview_image", "JPEG", latent)
        self._move(preview if is_preview(preview) else None)

    def _move(self, preview: tuple | None) -> None:
        if self.bar is None:
            return
        _, why = attempt(
            "The progress bar failed and is left out", self.bar.update_absolute, self.done, self.total, preview
        )
        if why is not None:
            self.bar = None  # said once

    def rough(self, latent: torch.Tensor) -> Image.Image | None:
        """The host's preview of one frame, (1, c, h, w), where the user has switched previews on."""
        found = self._previewed("decode_latent_to_preview", latent)
        if isinstance(found, torch.Tensor) and found.ndim == 4 and found.shape[-1] == 3:  # of VideoHelperSuite: -1..1
            return to_pil((found[0].float() + 1) / 2)
        return found if isinstance(found, Image.Image) else None

    def _previewed(self, how: str, *args) -> object:
        """What the host's previewer makes, which other packs replace: nothing in it may stop what is previewed."""
        if self.previewer is None:
            return None
        found, why = attempt("The preview failed and is left out", lambda: getattr(self.previewer, how)(*args))
        if why is not None:
            self.previewer = None  # said once
        return found


def is_preview(found: object) -> bool:
    """Whether it is what the host's bar takes: a format, a picture, and the most pixels a side of it may have."""
    return isinstance(found, tuple) and len(found) == 3 and isinstance(found[1], Image.Image)


def to_pil(image: torch.Tensor) -> Image.Image:
    """(h, w, 3) in 0..1 -> PIL."""
    return Image.fromarray((image.clamp(0, 1) * 255).byte().cpu().numpy())
