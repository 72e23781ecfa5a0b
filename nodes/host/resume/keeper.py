"""Keeps what a tuning has learnt: its state now and then, its weights when it is stopped. Finds earlier ones."""

import logging
from pathlib import Path

from ....ei2_modules.tuning import state as tuning_state
from ....ei2_modules.tuning.state import RunKey
from ..files import weights_folder
from ..progress import say
from ..tuning.run import TuningRun
from . import states

AUTO, NEW = "auto", "new run"


def choices() -> list[str]:
    """For the dropdown: the two ways, then the states that are there."""
    return [AUTO, NEW, *states.list_files()]


def fault(choice: str) -> str | None:
    """Why a choice cannot be made, or None."""
    return None if choice in (AUTO, NEW) else states.missing(choice)


class RunKeeper:
    """Of one tuning. every: steps between two saves of the state; 0 saves it only when the tuning is stopped."""

    def __init__(self, run: TuningRun, key: RunKey, every: int):
        self.run, self.key, self.every = run, key, every
        self.path: Path | None = None
        self.saved = 0  # steps in the file
        self.found = 0  # steps of the run that is gone on with

    def find(self, choice: str) -> Path | None:
        """The state of an earlier run to go on from, as chosen. Raises EI2Error for a file of another tuning."""
        steps, found = self.run.job.options.steps, None
        if choice == AUTO:
            found = states.matching(self.key, steps)
        elif choice != NEW:
            found = states.chosen(choice, self.key, steps)
        if found is None:
            return None
        origin, self.saved = found
        self.found = self.saved
        self.path = origin if states.is_for(origin, steps) else None
        if self.saved == steps:
            say(f"Already tuned: {steps} steps of the same clip, caption and options are in {origin.name}, and used.")
        else:
            say(f"Going on at step {self.saved} from {origin.name}")
        return origin

    def after_step(self, number: int) -> None:
        if self.every and number % self.every == 0:
            self.save_state()

    def finished(self) -> None:
        if self.every:
            self.save_state()

    def save_state(self) -> None:
        """Whole or not at all; a fault is logged, not raised: the tuning itself is well."""
        tuning = self.run.tuning
        if tuning is None or tuning.done in (0, self.saved):
            return
        try:
            job = self.run.job
            self.path = self.path or states.new_path(job.caption, job.options.steps)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            tuning_state.save(self.path, tuning, self.key, self.run.record.seconds)
            self.saved = tuning.done
            states.FOLDER.prune()
        except Exception as error:
            logging.error("EI²: the state of step %d could not be kept: %s", tuning.done, error)

    def stopped(self) -> None:
        """Save state and weights of a run that is being stopped, and say where. Never hides why it is being stopped."""
        if len(self.run.losses) <= self.found:
            return  # nothing new was learnt
        self.save_state()
        try:
            path = weights_folder.save(self.run.weights(), "unfinished", "output/ei2")
        except Exception as error:
            logging.error("EI²: One-Shot Tune stopped, and its weights could not be kept: %s", error)
            return
        done, steps = len(self.run.losses), self.run.job.options.steps
        say(f"Stopped at step {done} of {steps}. Run again to go on. The weights so far are in output/ei2/{path.name}")
