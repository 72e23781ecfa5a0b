"""What a part of the quality benchmark consists of: its runs, each what a line of results begins with."""

from dataclasses import asdict, replace
from itertools import groupby
from operator import itemgetter

from . import cases as q

FEW = 4  # clips of the ablations: the first motions


def jobs(values, part: str) -> list[dict]:
    """What a part asks for, seed by seed and clip by clip: what is there after a stop compares all methods."""
    settings = q.Settings()
    cases = q.choice_cases() if part == "choose" else q.cases(values.clip_seed)
    few = {"main": len(cases), "control": len(cases), "choose": len(cases), "reduced": 2}.get(part, FEW)
    ordinary = {"main": 3, "control": 3, "ablation": 1, "choose": 1, "reduced": 1}.get(part, 2)
    clips, seeds = values.clips or few, values.seeds or ordinary
    if part == "choose":
        variants = [(name, chosen) for name in q.BUDGETED for chosen in q.CHOICES]
    elif part == "budgets":
        variants = [(name, replace(settings, steps=steps)) for steps in q.BUDGETS for name in q.BUDGETED]
    elif part == "words":
        variants = [(name, replace(settings, weight=weight)) for name in q.MAIN for weight in q.WEIGHTS]
    elif part == "reduced":
        variants = [(name, replace(settings, steps=30, ddim_steps=10)) for name in (*q.MODULES, *q.CONTROLLED)]
    else:
        names = {"main": q.MAIN, "control": q.CONTROLLED, "ablation": q.ABLATED}.get(part, q.MODULES)
        variants = [(name, settings) for name in names]
    return [
        {"clip": case.name, "clip_seed": values.clip_seed, "method": name, "seed": seed, **asdict(chosen)}
        for seed in range(33, 33 + seeds)
        for case in cases[:clips]
        for name, chosen in variants
        if name in (values.methods or q.METHODS)
        if seed == 33 or q.METHODS[name].tuned  # without tuning there is nothing that a seed changes
    ]


def tunings(todo: list[dict]) -> list[list[dict]]:
    """Neighbours that need the same tuned model, together."""
    tuning = ("clip", "clip_seed", "method", "seed", "steps", "learning_rate")
    return [list(jobs) for _, jobs in groupby(todo, itemgetter(*tuning))]
