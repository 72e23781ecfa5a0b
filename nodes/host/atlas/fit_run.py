"""The fit of an atlas inside the host, from images to an atlas and its report."""

import time
from dataclasses import dataclass, replace

import comfy.model_management as mm
import torch
from torch import Tensor

from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.atlas.checks import checked_frames, checked_mask, fingerprint
from ....ei2_modules.atlas.fit import Fit
from ....ei2_modules.atlas.gates import REFUSED, flow_share, gates
from ....ei2_modules.atlas.options import FitOptions
from ....ei2_modules.atlas.start import start
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.motion.flow import Flow, checked, flow_of
from .. import optical_flow, plots
from ..attempt import attempt
from ..images import frames_of, image_of, masks_of
from ..progress import Progress, say, to_pil
from . import folder
from .report import told

UNFINISHED = "unfinished"
WORTH = 0.1  # of the steps, from which on a stopped fit is kept
PICTURES = 30  # shown of one fit
FLOATS = 80  # that a step holds of each pixel of its frames: 49 to 58 were counted


@dataclass(frozen=True)
class FitJob:
    """What is asked for: checked, and on the CPU."""

    frames: Tensor  # (n, 3, h, w)
    masks: tuple[Tensor, ...]  # (n, 1, h, w) each, from front to back
    flow: Flow | None
    options: FitOptions

    @classmethod
    def of(cls, images: Tensor, masks: dict[str, Tensor | None], flow: Flow | None, options: FitOptions, most: int):
        """masks: by the names of their inputs. Raises EI2Error before any work."""
        frames = checked_frames(frames_of(images, "images").cpu(), most)
        found = {name: masks_of(mask, name).cpu() for name, mask in masks.items() if mask is not None}
        found = tuple(checked_mask(mask, frames, name) for name, mask in found.items())
        return cls(frames, found, flow and checked(flow, len(frames), frames.shape[-2:]), options)


class FitRun:
    """One fit, its progress, and what is left of it when it is stopped."""

    def __init__(self, job: FitJob):
        self.job, self.fit = job, None
        self.steps = job.options.steps_for(len(job.frames))
        self.pairs = 0 if job.flow else len(job.frames) - 1
        self.progress = Progress(None, self.pairs + self.steps)

    def execute(self) -> tuple[Atlas, str]:
        """(atlas, report)."""
        job, device, began = self.job, mm.get_torch_device(), time.monotonic()
        h, w = job.frames.shape[-2:]
        mm.free_memory(4 * FLOATS * job.options.window * h * w, device)
        with torch.inference_mode(False):
            with torch.no_grad():
                flow = self._flow()
                begun = start(job.frames, job.masks, flow, job.options)
            self.fit = Fit(job.frames, job.masks, flow, begun, job.options, device)
            try:
                with torch.enable_grad():
                    self.fit.run(self._after_step)
            except mm.OOM_EXCEPTION as error:
                raise EI2Error(
                    f"Not enough memory on {device} to fit frames of {w}x{h}. Take smaller frames: half the "
                    "size needs a quarter of it."
                ) from error
            except BaseException:
                self._keep()
                raise
            return self._finished(flow, time.monotonic() - began)

    def atlas(self) -> Atlas | None:
        """As far as the fit has come."""
        return self.fit and replace(self.fit.atlas(), clip=fingerprint(self.job.frames))

    def _keep(self) -> None:
        """What a stopped fit has come to, as a file for Load Video Atlas; a preview is not worth one."""
        if self.fit.done < self.steps * WORTH:
            return
        path, why = attempt("The stopped fit could not be kept", lambda: folder.save(self.atlas(), UNFINISHED))
        say(
            why
            or f"The atlas of {self.fit.done} of {self.steps} steps is kept as {path.name} in output/{folder.FOLDER}."
        )

    def _flow(self) -> Flow:
        """Given or computed; refused where too little of it agrees."""
        job = self.job
        flow = job.flow
        if flow is None:
            estimate, name = optical_flow.estimator(optical_flow.AUTO, job.frames.shape[-2:])
            flow = flow_of(
                job.frames, estimate, name, job.options.lighting, lambda done, there: self.progress.advance_to(done)
            )
        if flow.share() < REFUSED:
            raise EI2Error(f"Flow agrees both ways on only {flow.share():.0%} of the pixels. {flow_share(flow).advice}")
        return flow

    def _after_step(self, fit: Fit) -> None:
        every = max(1, self.steps // PICTURES)
        picture = None
        if fit.done % every == 0 or fit.done == self.steps:
            picture, _ = attempt("The picture of the fit is left out", self._picture, fit)
        self.progress.advance_to(self.pairs + fit.done, image=picture)

    @staticmethod
    def _picture(fit: Fit):
        """The middle frame, what the atlas makes of it, and alpha."""
        parts = dict(zip(("clip", "atlas", "alpha"), fit.peek(len(fit.clip) // 2), strict=True))
        return plots.beside({name: to_pil(image_of(part[None])[0]) for name, part in parts.items()})

    @torch.no_grad()
    def _finished(self, flow: Flow, seconds: float) -> tuple[Atlas, str]:
        job, atlas = self.job, self.atlas()
        found = gates(atlas, job.frames, job.masks, flow)
        (h, w), masks = atlas.size, "tight" if self.fit.begun.tight else "rough"
        about = f"{atlas.frames} frames of {w}x{h}, motion {job.options.motion}, " + (
            f"masks taken as {masks}, " if job.masks else "no mask: one layer, "
        )
        about += f"{self.steps} steps in {seconds:.0f} s, flow by {flow.method}"
        return atlas, told(about, found, psnr=found[1].value)
