"""A null-text inversion in words."""

import logging

from ..sampling.round_trip import figures
from . import preflight
from .run import NullTextRun


def report(run: NullTextRun) -> str:
    """Of a whole run: what was asked for, how well the clip comes back, and a line for each step."""
    return "\n".join([_asked_for(run), *_comes_back(run), *_work(run), *_steps(run)])


def summary(run: NullTextRun) -> str:
    """For the node itself, where there is little room."""
    before, after = (sum(values) / len(values) for values in (run.before, run.after))
    return f"at cfg {run.job.cfg:g} the clip comes back at {after:.1f} dB, without the null text at {before:.1f} dB"


def _asked_for(run: NullTextRun) -> str:
    job = run.job
    texts = "one text for each frame" if job.options.per_frame else "one text for all frames"
    branch = "source only" if job.decoupled else "source and edit"
    steps = "the last half of them" if job.last_half else "all of them"
    return (
        f"Null-text inversion: {len(job.start.samples)} frames, {job.start.schedule.steps} steps, used in {steps}, "
        f"cfg {job.cfg:g}, {texts}, for {branch}"
    )


def _comes_back(run: NullTextRun) -> list[str]:
    name = f"reconstruction at cfg {run.job.cfg:g}, latent"
    lines = [figures(f"{name}, before", run.before), figures(f"{name}, with the null text", run.after)]
    if not sum(run.after) > sum(run.before):
        warning = (
            "the null text does not bring the clip nearer. Likely cause: a learning_rate that is too high, or too few "
            "inner_steps."
        )
        logging.warning("EI²: %s", warning)
        lines.append(f"WARNING: {warning}")
    return lines


def _work(run: NullTextRun) -> list[str]:
    taken, most = sum(run.done.updates), run.job.options.inner * len(run.done.updates)
    return [
        f"updates: {taken} of at most {most}, fitted in {run.seconds:.0f} s",
        f"memory: {preflight.memory(run.demand, run.job.model.load_device)}, an estimate",
    ]


def _steps(run: NullTextRun) -> list[str]:
    rows = zip(run.done.sigmas.tolist(), run.done.updates, run.done.losses, strict=True)
    return [
        f"step {i}, sigma {sigma:.2f}: {taken} updates, loss {loss:.2e}"
        for i, (sigma, taken, loss) in enumerate(rows, 1)
    ]
