"""Edits of rendered clips with the miniature model, by every method, measured against what they should be.

    python dev.py bench quality choose     learning rate, guidance, text of the inversion: 3 clips of their own
    python dev.py bench quality main       per-frame, Tune-A-Video, EI² r = 2 and 4: all clips, 3 seeds (about an hour)
    python dev.py bench quality modules    the other temporal modules, attentions and starts: 4 clips, 2 seeds
    python dev.py bench quality budgets    0 to 500 tuning steps: 4 clips, 2 seeds
    python dev.py bench quality words      the edit's own words at less weight: 4 clips, 2 seeds
    python dev.py bench quality control    attention control, Video-P2P, vid2vid-zero, FateZero: all clips
    python dev.py bench quality ablation   the parts of the control, without tuning: 4 clips
    python dev.py bench quality limits     the true clips themselves, and after the autoencoder: no edit can do better
    python dev.py bench quality reduced    a little of everything in ten minutes
    python dev.py bench quality report     the tables and the figure, of what has been run

Every run is a line of the results file as soon as it ends; the same command goes on where it stopped. Another
--clip-seed makes other clips.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from .. import RESULTS
from ..common.report import parse as parse_command_line
from . import cases as q
from . import figure, report
from .jobs import jobs, tunings
from .limits import limits
from .worker import PICTURES, work

PARTS = ("choose", "main", "modules", "budgets", "words", "control", "ablation", "limits", "reduced", "report")


def main() -> None:
    values = parse()
    if values.part == "report":
        return write(values)
    if values.part == "limits":
        return print(limits(q.cases(values.clip_seed)[: values.clips]))
    done = {report.identity(row) for row in report.rows(values.results)}
    wanted = jobs(values, values.part)
    todo = [job for job in wanted if report.identity(job) not in done]
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
        return print(report.choice(report.rows(values.results)))
    return print(report.tables(report.rows(values.results), parts(values)))


def parts(values) -> dict[str, set]:
    """The runs that belong into the tables of each part; one run may belong into several."""
    names = ["main", "control", "ablation", "modules", "budgets", "words"] if values.part == "report" else [values.part]
    return {name: {report.identity(job) for job in jobs(values, name)} for name in names}


def parse() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("part", choices=PARTS)
    options.add_argument("--results", type=Path, help="default: benchmarks/results/quality.jsonl, or one of their own")
    options.add_argument("--seeds", type=int, help="seeds of a clip")
    options.add_argument("--clips", type=int, help="only the first so many")
    options.add_argument("--clip-seed", type=int, default=q.CLIP_SEED)
    options.add_argument("--methods", nargs="+", choices=q.METHODS, metavar="METHOD", help="of the part, only these")
    options.add_argument("--workers", type=int, default=1 if torch.cuda.is_available() else os.cpu_count())
    values = parse_command_line(options, as_json=False)
    values.threads = max(1, values.threads // values.workers)
    own = {"choose": "_choice", "reduced": "_reduced"}.get(values.part, "")
    own += f"_clips{values.clip_seed}" if values.clip_seed != q.CLIP_SEED else ""
    values.results = values.results or RESULTS / f"quality{own}.jsonl"
    return values


def write(values) -> None:
    """The tables as Markdown and the figure, beside the results."""
    found = report.rows(values.results)
    wanted = parts(values)
    compared = [row for row in found if report.identity(row) in wanted["main"]]
    if not compared:
        raise SystemExit(f"{values.results} holds no runs of the main comparison: python dev.py bench quality main")
    choice = report.rows(RESULTS / "quality_choice.jsonl")
    text = report.document(found, wanted, choice)
    values.results.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    examples = [case.name for case in q.cases(values.clip_seed)][:3]
    figure.draw(compared, PICTURES, values.results.with_suffix(".png"), examples)
    print(f"{text}\n\n{values.results.with_suffix('.md')}, {values.results.with_suffix('.png')}")


def keep(path: Path, rows: list[dict]) -> None:
    """Add lines. One cut short by a crash is no JSON and is done again."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


if __name__ == "__main__":
    main()
