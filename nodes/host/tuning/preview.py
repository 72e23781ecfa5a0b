"""What a user sees of a tuning: the bar, numbers, and pictures of what the model makes of the clip by now."""

import time
from collections.abc import Callable

import comfy.model_management as mm
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from PIL import Image

from .. import plots
from ..attempt import attempt
from ..latents import pixels
from ..progress import Progress, show_text, to_pil
from .guider import PREVIEW_STEPS
from .preflight import STEP_PASSES, duration
from .run import TuningRun

SHARE = 0.05  # of the time that pictures may take when they choose their own moments
CLOCK = 0.016  # seconds from one tick to the next of a clock that has few: that of Windows
TELL_EVERY = 1.0  # seconds from one text, and one curve, to the next


class TuningProgress:
    """every: steps from picture to picture; 0: as often as SHARE allows, and at the end at the latest."""

    def __init__(self, model: ModelPatcher, run: TuningRun, vae: VAE | None, every: int = 0, done: int = 0):
        self.run, self.vae, self.every = run, vae, every
        self.steps = run.job.options.steps
        self.progress = Progress(model, self.steps, done)
        self.start = done
        self.to_latent = model.model.process_latent_out
        self.began = self.told = time.monotonic()
        self.spent = 0.0  # seconds, on pictures
        self.cost: float | None = None  # of the last picture
        self.source: Image.Image | None = None
        self.frames: dict[str, Image.Image] = {}  # of the last look
        self.blind = False  # after a look that failed

    def after_step(self, number: int, clean: torch.Tensor, sample: Callable[[], torch.Tensor]) -> None:
        """Raises the host's interrupt. clean, sample(): (n, c, h, w), source and quick sample."""
        mm.throw_exception_if_processing_interrupted()
        due, now = self._due(number), time.monotonic()
        if due:
            _, why = attempt("The pictures of this tuning are left out", self._look, clean, sample)
            self.blind = why is not None  # said once
            self.cost = time.monotonic() - now
            self.spent += self.cost
        tell = due or now - self.told >= TELL_EVERY or number == self.steps
        self.progress.advance(image=attempt("The picture is left out", self._picture)[0] if tell else None)
        if tell:
            self.told = now
            attempt("The text of this step is left out", self._tell, number)

    def _tell(self, number: int) -> None:
        now, last = time.monotonic(), number == self.steps
        recent = self.run.losses[-20:]
        rate = (number - self.start) / max(now - self.began, CLOCK)
        left = "" if last else f", {duration((self.steps - number) / rate)} left"
        show_text(
            f"step {number} of {self.steps}, {rate:.3g} steps/s{left}, "
            f"loss {sum(recent) / len(recent):.4f} (mean of {len(recent)})"
        )

    def _due(self, number: int) -> bool:
        if self.blind:
            return False
        if self.every:
            return number % self.every == 0
        elapsed = time.monotonic() - self.began
        forward = elapsed / (number - self.start) / STEP_PASSES[self.run.demand.checkpointing]
        guess = PREVIEW_STEPS * forward
        cost = guess if self.cost is None else self.cost
        last_chance = self.cost is None and number == self.steps
        return last_chance or self.spent + cost < SHARE * elapsed

    def _look(self, clean, sample) -> None:
        """Make the frames of the picture anew."""
        self.source = self.source or self._frame(clean)
        frames = {"source": self.source, f"sample at step {len(self.run.losses)}": self._frame(sample())}
        self.frames = {name: frame for name, frame in frames.items() if frame is not None}

    def _picture(self) -> Image.Image:
        losses = plots.curve(self.run.losses, "loss of every step, and its running mean", low=0.0)
        return plots.above(plots.beside(self.frames), losses) if self.frames else losses

    def _frame(self, latents: torch.Tensor) -> Image.Image | None:
        """The middle frame: decoded, or where that is not possible the host's rough preview of it, or nothing."""
        middle = latents[len(latents) // 2][None]
        if self.vae is not None:
            image, why = attempt("Previews are rough, without the VAE", self._decoded, middle)
            if image is not None:
                return image
            self.vae = None if why else self.vae
        return self.progress.rough(middle)

    @torch.no_grad()
    def _decoded(self, latents: torch.Tensor) -> Image.Image | None:
        """A picture of one frame, (1, c, h, w); None where memory does not suffice now."""
        if not room_to_decode(self.vae, latents.shape):
            return None
        return to_pil(pixels(self.vae, self.to_latent(latents.float()))[0])


def room_to_decode(vae: VAE, shape: tuple[int, ...]) -> bool:
    """Whether a VAE can decode latents of this shape without the host unloading the model that is being trained."""
    needed = 1.1 * vae.patcher.model_size() + vae.memory_used_decode(shape, vae.vae_dtype)
    return needed + mm.minimum_inference_memory() < mm.get_free_memory(vae.device)
