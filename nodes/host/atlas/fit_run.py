"""The fit of an atlas inside the host, from images to an atlas and its report."""

from dataclasses import replace

import comfy.model_management as mm
import torch

from ....ei2_modules.atlas.atlas import Atlas
from ....ei2_modules.atlas.checks import fingerprint
from ....ei2_modules.atlas.fit import Fit
from ....ei2_modules.atlas.gates import REFUSED, flow_share, gates
from ....ei2_modules.atlas.start import start
from ....ei2_modules.errors import EI2Error
from ....ei2_modules.motion.flow import Flow
from .. import optical_flow, plots
from ..attempt import attempt
from ..images import image_of
from ..progress import Progress, say, to_pil
from ..resume.keeper import AUTO
from . import folder
from .fit_job import FitJob
from .fit_states import FitStates
from .report import told

UNFINISHED = "unfinished"
WORTH = 0.1  # of the steps, from which on a stopped fit is kept
PICTURES = 30  # shown of one fit
FLOATS = 80  # that a step holds of each pixel of its frames: 49 to 58 were counted


class FitRun:
    """One fit, its progress, and what is left of it when it is stopped."""

    def __init__(self, job: FitJob, resume: str = AUTO):
        """resume: of fit_states.CHOICES."""
        self.job, self.resume, self.fit = job, resume, None
        self.states = FitStates(job)
        self.pairs = 0 if job.flow else len(job.frames) - 1
        self.progress = Progress(None, self.pairs + job.steps)

    def execute(self) -> tuple[Atlas, str]:
        """(atlas, report)."""
        job, device = self.job, mm.get_torch_device()
        h, w = job.frames.shape[-2:]
        mm.free_memory(4 * FLOATS * job.options.window * h * w, device)
        with torch.inference_mode(False):
            try:
                self.fit = self._begun(device)
                with torch.enable_grad():
                    self.fit.run(self._after_step)
            except mm.OOM_EXCEPTION as error:
                self._stopped()
                raise EI2Error(
                    f"Not enough memory on {device} to fit frames of {w}x{h}. Take smaller frames: half the "
                    "size needs a quarter of it."
                ) from error
            except BaseException:
                self._stopped()
                raise
            self.states.save(self.fit)
            return self._finished()

    @torch.no_grad()
    def _begun(self, device: torch.device) -> Fit:
        """As far as an earlier run has come, or at the start."""
        found = self.states.find(device) if self.resume == AUTO else None
        if found is None:
            clip = self.job.frames, self.job.masks, self._flow()
            return Fit(*clip, start(*clip, self.job.options), self.job.options, device)
        self._show(found)
        return found

    def atlas(self) -> Atlas | None:
        """As far as the fit has come."""
        return self.fit and replace(self.fit.atlas(), clip=fingerprint(self.job.frames))

    def _stopped(self) -> None:
        """Keep what is new, and say so. Never hides why it was stopped."""
        fit, states = self.fit, self.states
        if fit is None or fit.done == states.found:
            return
        states.save(fit)
        again = f"Stopped at step {fit.done} of {fit.steps}. Run again to go on at step {states.saved}. "
        said = (again * bool(states.saved) + self._kept()).strip()
        if said:
            say(said)

    def _kept(self) -> str:
        """What a stopped fit has come to, as a file for Load Video Atlas; a preview is not worth one."""
        if self.fit.done < self.fit.steps * WORTH:
            return ""
        path, why = attempt("The stopped fit could not be kept", lambda: folder.save(self.atlas(), UNFINISHED))
        return why or f"The atlas so far is kept as {path.name} in output/{folder.FOLDER}."

    def _flow(self) -> Flow:
        """Given or computed; refused where too little of it agrees."""
        job = self.job
        flow = job.flow
        if flow is None:
            lighting = job.options.lighting
            flow = optical_flow.estimated(
                job.frames, even_light=lighting, on_pair=lambda done, there: self.progress.advance_to(done)
            )
        if flow.share() < REFUSED:
            raise EI2Error(f"Flow agrees both ways on only {flow.share():.0%} of the pixels. {flow_share(flow).advice}")
        return flow

    def _after_step(self, fit: Fit) -> None:
        self._show(fit)
        self.states.after_step(fit)

    def _show(self, fit: Fit) -> None:
        every = max(1, fit.steps // PICTURES)
        picture = None
        if fit.done % every == 0 or fit.done == fit.steps:
            picture, _ = attempt("The picture of the fit is left out", self._picture, fit)
        self.progress.advance_to(self.pairs + fit.done, image=picture)

    @staticmethod
    def _picture(fit: Fit):
        """The middle frame, what the atlas makes of it, and alpha."""
        parts = dict(zip(("clip", "atlas", "alpha"), fit.peek(len(fit.clip) // 2), strict=True))
        return plots.beside({name: to_pil(image_of(part[None])[0]) for name, part in parts.items()})

    @torch.no_grad()
    def _finished(self) -> tuple[Atlas, str]:
        job, fit, atlas = self.job, self.fit, self.atlas()
        found = gates(atlas, job.frames, job.masks, fit.flow)
        (h, w), masks = atlas.size, "tight" if fit.begun.tight else "rough"
        about = f"{atlas.frames} frames of {w}x{h}, motion {job.options.motion}, " + (
            f"masks taken as {masks}, " if job.masks else "no mask: one layer, "
        )
        about += f"{fit.steps} steps in {self.states.took:.0f} s, flow by {fit.flow.method}"
        return atlas, told(about, found, found[1].value, "Already fitted: " * (self.states.found == fit.steps))
