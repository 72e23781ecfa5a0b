"""What a fit leaves in output/ei2_atlas/states when it is stopped or finished, and how the next one finds it."""

import logging
import time
from pathlib import Path

import torch

from ....ei2_modules.atlas import state
from ....ei2_modules.atlas.fit import Fit
from ..attempt import attempt
from ..progress import say
from ..resume.folder import StatesFolder, passed_over_when_damaged
from ..resume.keeper import AUTO, NEW
from . import folder
from .fit_job import FitJob

CHOICES = (AUTO, NEW)
KEEP = 4
FOLDER = StatesFolder(lambda: folder.directory() / "states", KEEP, "fit")
WAIT = 30.0  # seconds of work between two saves, at least
SHARE = 20  # times as long as a save takes, at least: so it costs a twentieth of the time, whatever the clip's size


class FitStates:
    """Of one fit that begins now."""

    def __init__(self, job: FitJob):
        self.job, self.key, self.path = job, job.key(), None
        self.found = self.saved = 0  # steps: of the fit that is gone on with, and in the file
        self.before = self.took = 0.0  # seconds: of earlier runs, and of all as of the last save
        self.began = time.monotonic()
        self.due = self.began + WAIT

    def find(self, device: torch.device) -> Fit | None:
        """The earlier fit of the same clip, masks, flow and options that has come furthest."""
        for path, _ in FOLDER.furthest_first(self._done_of):
            with passed_over_when_damaged():
                job = self.job
                fit, self.before = state.restore(path, job.frames, job.masks, job.flow, job.options, device)
                self.path, self.found, self.saved, self.took = path, fit.done, fit.done, self.before
                self._tell(fit, path)
                return fit
        return None

    def _done_of(self, path: Path) -> int | None:
        key, done = state.read(path)
        return done if key == self.key else None

    def _tell(self, fit: Fit, path: Path) -> None:
        if fit.done == fit.steps:
            say(f"Already fitted: {fit.steps} steps of the same clip, masks, flow and options are in {path.name}.")
        else:
            say(f"Going on at step {fit.done} of {fit.steps} of an earlier fit.")

    def after_step(self, fit: Fit) -> None:
        if time.monotonic() >= self.due and fit.done < fit.steps:
            self.save(fit)

    def save(self, fit: Fit) -> None:
        """Where there is something new. A fault is logged, not raised; a step that broke off halfway is not saved."""
        if fit.done == self.saved or fit.moving:
            return
        began = time.monotonic()
        self.took = self.before + began - self.began
        _, why = attempt("it could not be written", self._write, fit)
        if why:
            logging.error("EI²: the state of step %d could not be kept: %s", fit.done, why)
        now = time.monotonic()
        self.due = now + max(WAIT, SHARE * (now - began))

    def _write(self, fit: Fit) -> None:
        h, w = fit.size
        path = self.path or FOLDER.new_path(f"{len(fit.clip)} frames of {w}x{h}, {fit.steps} steps, ")
        path.parent.mkdir(parents=True, exist_ok=True)
        state.save(path, fit, self.key, self.took, self.job.flow is None)
        self.path, self.saved = path, fit.done
        FOLDER.prune()
