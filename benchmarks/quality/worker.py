"""A process that does runs of the quality benchmark."""

import os
from dataclasses import fields
from pathlib import Path

import torch

from . import cases as q
from .figure import kept

PICTURES = Path(os.environ["EI2_CACHE"]) / "quality"  # what the figure is made of


def work(jobs: list[dict]) -> list[dict]:
    """Runs of one tuned model: the jobs with their results."""
    from .run import editor  # loads the host, which the command itself does without

    with torch.inference_mode():
        return [job | one(job, editor()) for job in jobs]


def one(job: dict, editor) -> dict:
    case = next(c for c in [*q.cases(job["clip_seed"]), *q.choice_cases()] if c.name == job["clip"])
    settings = q.Settings(**{field.name: job[field.name] for field in fields(q.Settings)})
    shown = settings == q.Settings() and job["seed"] == 33
    path = kept(PICTURES, job["clip"], job["method"], job["clip_seed"]) if shown else None
    return editor.run(case, job["method"], job["seed"], settings, path)
