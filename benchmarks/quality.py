"""Edits of rendered clips with the miniature model, by every method, measured against what they should be.

    python dev.py bench quality choose     learning rate, guidance, text of the inversion: 3 clips of their own
    python dev.py bench quality main       per-frame, Tune-A-Video, EI² r = 2 and 4: all clips, 3 seeds (about an hour)
    python dev.py bench quality modules    the other temporal modules, attentions and starts: 4 clips, 2 seeds
    python dev.py bench quality budgets    0 to 500 tuning steps: 4 clips, 2 seeds
    python dev.py bench quality words      the edit's own words at less weight: 4 clips, 2 seeds
    python dev.py bench quality reduced    a little of everything in ten minutes
    python dev.py bench quality report     the tables and the figure, of what has been run

Every run is a line of the results file as soon as it ends; the same command goes on where it stopped. Another
--clip-seed makes other clips.
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, fields, replace
from functools import cache
from itertools import groupby
from multiprocessing import get_context
from operator import itemgetter
from pathlib import Path

import report
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import in_process

in_process.load_host()
in_process.load_pack()
import quality_cases as q  # noqa: E402
import quality_figure  # noqa: E402
import quality_report  # noqa: E402

PICTURES = Path(os.environ["EI2_CACHE"]) / "quality"  # what the figure is made of
RESULTS = Path(__file__).parent / "results"
FEW = 4  # clips of the ablations: the first motions


def main() -> None:
    values = parse()
    if values.part == "report":
        return write(values)
    done = {quality_report.identity(row) for row in quality_report.rows(values.results)}
    wanted = jobs(values, values.part)
    todo = [job for job in wanted if quality_report.identity(job) not in done]
    print(f"{len(wanted)} runs, {len(wanted) - len(todo)} of them already in {values.results.name}", flush=True)
    values.results.parent.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with ProcessPoolExecutor(values.workers, get_context("spawn"), torch.set_num_threads, (values.threads,)) as pool:
        running = [pool.submit(work, job) for job in tunings(todo)]
        for i, future in enumerate(as_completed(running), 1):
            keep(values.results, future.result())
            left = (time.monotonic() - began) / i * (len(running) - i)
            print(f"{i}/{len(running)}, {left / 60:.0f} min left", flush=True)
    if values.part == "choose":
        return print(quality_report.choice(quality_report.rows(values.results)))
    return print(quality_report.tables(quality_report.rows(values.results), parts(values)))


def parts(values) -> dict[str, set]:
    """The runs that belong into the tables of each part; one run may belong into several."""
    names = ["main", "modules", "budgets", "words"] if values.part == "report" else [values.part]
    return {name: {quality_report.identity(job) for job in jobs(values, name)} for name in names}


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("part", choices=("choose", "main", "modules", "budgets", "words", "reduced", "report"))
    options.add_argument("--results", type=Path, help="default: benchmarks/results/quality.jsonl, or one of their own")
    options.add_argument("--seeds", type=int, help="seeds of a clip")
    options.add_argument("--clips", type=int, help="only the first so many")
    options.add_argument("--clip-seed", type=int, default=q.CLIP_SEED)
    options.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count())
    values = report.parse(options, as_json=False)
    values.threads = max(1, values.threads // values.workers)
    own = {"choose": "_choice", "reduced": "_reduced"}.get(values.part, "")
    own += f"_clips{values.clip_seed}" if values.clip_seed != q.CLIP_SEED else ""
    values.results = values.results or RESULTS / f"quality{own}.jsonl"
    return values


def write(values) -> None:
    """The tables as Markdown and the figure, beside the results."""
    found = quality_report.rows(values.results)
    wanted = parts(values)
    compared = [row for row in found if quality_report.identity(row) in wanted["main"]]
    if not compared:
        raise SystemExit(f"{values.results} holds no runs of the main comparison: python dev.py bench quality main")
    choice = quality_report.rows(RESULTS / "quality_choice.jsonl")
    text = quality_report.document(found, wanted, choice)
    values.results.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    examples = [case.name for case in q.cases(values.clip_seed)][:3]
    quality_figure.draw(compared, PICTURES, values.results.with_suffix(".png"), examples)
    print(f"{text}\n\n{values.results.with_suffix('.md')}, {values.results.with_suffix('.png')}")


def jobs(values, part: str) -> list[dict]:
    """What a part asks for, seed by seed and clip by clip: what is there after a stop compares all methods."""
    settings = q.Settings()
    cases = q.choice_cases() if part == "choose" else q.cases(values.clip_seed)
    few = {"main": len(cases), "choose": len(cases), "reduced": 2}.get(part, FEW)
    clips, seeds = values.clips or few, values.seeds or {"main": 3, "choose": 1, "reduced": 1}.get(part, 2)
    if part == "choose":
        variants = [(name, chosen) for name in q.BUDGETED for chosen in q.CHOICES]
    elif part == "budgets":
        variants = [(name, replace(settings, steps=steps)) for steps in q.BUDGETS for name in q.BUDGETED]
    elif part == "words":
        variants = [(name, replace(settings, weight=weight)) for name in q.MAIN for weight in q.WEIGHTS]
    elif part == "reduced":
        variants = [(name, replace(settings, steps=30, ddim_steps=10)) for name in q.METHODS]
    else:
        variants = [(name, settings) for name in (q.MAIN if part == "main" else q.METHODS)]
    return [
        {"clip": case.name, "clip_seed": values.clip_seed, "method": name, "seed": seed, **asdict(chosen)}
        for seed in range(33, 33 + seeds)
        for case in cases[:clips]
        for name, chosen in variants
        if seed == 33 or q.METHODS[name].tuned  # without tuning there is nothing that a seed changes
    ]


@cache
def editor():
    from quality_run import Editor  # in the worker, where the number of threads is set

    return Editor()


def tunings(todo: list[dict]) -> list[list[dict]]:
    """Neighbours that need the same tuned model, together."""
    tuning = ("clip", "clip_seed", "method", "seed", "steps", "learning_rate")
    return [list(jobs) for _, jobs in groupby(todo, itemgetter(*tuning))]


@torch.inference_mode()
def work(jobs: list[dict]) -> list[dict]:
    """Runs of one tuned model, in a worker: the jobs with their results."""
    return [job | one(job) for job in jobs]


def one(job: dict) -> dict:
    case = next(c for c in [*q.cases(job["clip_seed"]), *q.choice_cases()] if c.name == job["clip"])
    settings = q.Settings(**{field.name: job[field.name] for field in fields(q.Settings)})
    shown = settings == q.Settings() and job["seed"] == 33
    path = quality_figure.kept(PICTURES, job["clip"], job["method"], job["clip_seed"]) if shown else None
    return editor().run(case, job["method"], job["seed"], settings, path)


def keep(path: Path, rows: list[dict]) -> None:
    """Add lines. One cut short by a crash is no JSON and is done again."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
