"""Tables and the figure of the quality benchmark, from its lines of results. The clip is the unit of statistics."""

import json
import math
from collections import defaultdict
from dataclasses import asdict, fields
from pathlib import Path
from statistics import mean, stdev

from scipy.stats import t as student

from .cases import MAIN, Settings

HEADINGS = {
    "success": "edit done",
    "kept": "rest kept",
    "slope": "motion slope",
    "correlation": "motion corr.",
    "centroid_px": "centroid px",
    "mae": "error to truth",
    "outside_mae": "error outside",
    "warp_outside": "flicker outside",
    "warp_object": "flicker object",
    "colour_deviation": "colour dev.",
    "reconstruction_db": "reconstr. dB",
    "mean_shift": "mean shift",
    "covariance_shift": "cov. shift",
    "mean_shift_before": "mean shift untuned",
    "tune_s": "tuning s",
    "edit_s": "4 edits s",
    "peak_mib": "peak MiB",
}
AGAINST = ("success", "centroid_px", "mae", "warp_outside", "warp_object", "mean_shift")  # of the ablations
PER_CLIP = ("success", "slope", "centroid_px", "mae", "outside_mae", "warp_outside")


def rows(path: Path) -> list[dict]:
    """The whole lines of a results file."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # cut short by a crash: that run is done again
    return found


def identity(job: dict) -> tuple:
    """What makes a run, among the keys of a line."""
    return tuple(job[name] for name in ("clip", "clip_seed", "method", "seed", *(f.name for f in fields(Settings))))


def figures(row: dict) -> dict[str, float | None]:
    """One number a measure for one run: the mean over its edits."""
    edits = row["edits"]
    found = {}
    for name in next(iter(edits.values())):
        if name not in edits:
            found[name] = average(edit[name] for edit in edits.values())
    found["success"] = average(edit[kind] for kind, edit in edits.items())
    found["kept"] = average(edit[a] for k, edit in edits.items() for a in edits if a != k)
    for kind, edit in edits.items():
        found[f"success {kind}"] = edit[kind]
    after = row.get("after") or {}
    before = row.get("before") or {}
    found |= {name: after.get(name) for name in ("mean_shift", "covariance_shift")}
    found["mean_shift_before"] = before.get("mean_shift")
    return found | {name: row[name] for name in ("reconstruction_db", "tune_s", "edit_s", "peak_mib")}


def average(values) -> float | None:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return mean(known) if known else None


def by_clip(found: list[dict], measure: str) -> dict[tuple, dict[str, float]]:
    """(method, steps) -> clip -> mean over seeds."""
    values: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        values[row["method"], row["steps"]][row["clip"]].append(figures(row)[measure])
    means = {k: {clip: average(v) for clip, v in clips.items()} for k, clips in values.items()}
    return {k: {clip: v for clip, v in clips.items() if v is not None} for k, clips in means.items()}


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of its 95 % interval, by Student's t."""
    if len(values) < 2:
        return (values[0] if values else math.nan), math.nan
    return mean(values), student.ppf(0.975, len(values) - 1) * stdev(values) / len(values) ** 0.5


def number(value: float, half: float | None = None) -> str:
    if value is None or math.isnan(value):
        return "-"
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 0.1 else 4
    text = f"{value:.{digits}f}"
    return text if half is None or math.isnan(half) else f"{text} ± {half:.{digits}f}"


def table(header: list[str], lines: list[list[str]]) -> str:
    """Markdown."""
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, ["---"] * len(header), *lines])


def summary(found: list[dict]) -> str:
    """A line a method: mean over clips and its 95 % interval."""
    lines = defaultdict(list)
    for name in HEADINGS:
        for method, clips in by_clip(found, name).items():
            lines[method].append(number(*interval(list(clips.values()))) if clips else "-")
    return table(["method", *HEADINGS.values()], _named(lines))


def _named(lines: dict[tuple, list[str]]) -> list[list[str]]:
    """In order, with the name of the method before the cells, and the steps where they differ."""
    several = len({steps for _, steps in lines}) > 1
    return [[f"{m}, {s} steps" if several else m, *cells] for (m, s), cells in sorted(lines.items(), key=_order)]


def _order(item):
    (method, steps), _ = item
    return (MAIN.index(method) if method in MAIN else len(MAIN), method, steps)


def differences(found: list[dict], ours: str = "EI² r=2", other: str = "Tune-A-Video") -> str:
    """Paired by clip: ours minus the other, its 95 % interval, and on how many clips it is above 0."""
    lines = []
    for name, heading in HEADINGS.items():
        pairs = paired(by_clip(found, name), ours, other)
        if pairs:
            lines.append([heading, number(*interval(pairs)), f"{sum(p > 0 for p in pairs)} of {len(pairs)}"])
    return table(["measure", f"{ours} minus {other}", "clips above 0"], lines)


def against(found: list[dict], ours: str = "EI² r=2") -> str:
    """Ours minus every other method, paired by clip, with the clips on which it is above 0."""
    figures_of = {name: by_clip(found, name) for name in AGAINST}
    lines = []
    for other, _ in sorted(figures_of["mae"]):
        pairs = [paired(clips, ours, other) for clips in figures_of.values()]
        cells = [f"{number(*interval(p))} ({sum(x > 0 for x in p)} of {len(p)})" if p else "-" for p in pairs]
        lines += [[other, *cells]] if other != ours else []
    return table([f"{ours} minus", *(HEADINGS[name] for name in AGAINST)], lines)


def paired(clips: dict[tuple, dict], ours: str, other: str) -> list[float]:
    """One difference a clip that has both, at the most steps of ours."""
    steps = max((s for m, s in clips if m == ours), default=None)
    a, b = clips.get((ours, steps), {}), clips.get((other, steps), {})
    return [a[clip] - b[clip] for clip in a if clip in b]


def per_clip(found: list[dict]) -> str:
    lines = []
    tables = {name: by_clip(found, name) for name in PER_CLIP}
    for clip in sorted({row["clip"] for row in found}):
        for key, _ in sorted(tables["mae"].items(), key=_order):
            if clip in tables["mae"][key]:
                cells = [number(tables[name][key].get(clip)) for name in PER_CLIP]
                lines.append([clip, key[0], *cells])
    return table(["clip", "method", *(HEADINGS[name] for name in PER_CLIP)], lines)


def by_edit(found: list[dict]) -> str:
    kinds = list(found[0]["edits"])
    tables = [by_clip(found, f"success {kind}") for kind in kinds]
    lines = {key: [number(*interval(list(t[key].values()))) for t in tables] for key in tables[0]}
    return table(["edit done", *kinds], _named(lines))


def by_kind(found: list[dict]) -> str:
    """Every kind of edit by itself: mean over clips. Errors of 255."""
    names = {
        "done": 1,
        "slope": 1,
        "centroid_px": 1,
        "mae": 255,
        "outside_mae": 255,
        "warp_outside": 1,
        "warp_object": 1,
    }
    values: dict[tuple, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for row in found:
        for kind, edit in row["edits"].items():
            for name, scale in names.items():
                value = edit[kind] if name == "done" else edit[name]
                values[kind, row["method"], row["steps"]][name].append(value if value is None else scale * value)
    lines = [
        [kind, method, *(number(average(cells[name])) for name in names)]
        for (kind, method, _), cells in sorted(values.items(), key=lambda item: (item[0][0], _order((item[0][1:], 0))))
    ]
    heads = [HEADINGS.get(name, "edit done") + (" of 255" if scale > 1 else "") for name, scale in names.items()]
    return table(["edit", "method", *heads], lines)


def choice(found: list[dict]) -> str:
    """The rule: the smallest error to the truth, over all methods and clips together."""
    errors = defaultdict(list)
    for row in found:
        errors[f"{row['learning_rate']:g}", f"{row['guidance']:g}", row["inversion"]].append(figures(row)["mae"])
    lines = [[*setting, f"{mean(values):.4f}"] for setting, values in errors.items()]
    best = min(errors, key=lambda setting: mean(errors[setting]))
    heading = ["learning rate", "guidance", "inversion", "error to truth"]
    return table(heading, lines) + f"\n\nChosen: {', '.join(best)}"


ABOUT = """# Edits of rendered clips by the miniature model

Made by `python dev.py bench quality report` from the lines of results beside this file; `bench quality --help` says how
they are made. Every number is a mean over clips (the seeds of a clip are averaged first) ± half of its 95 % interval by
Student's t. Settings of every method: {settings}.

- edit done: share of frames in which the scorers read what was asked for; rest kept: the same of the other attributes.
- motion slope: 1 is the true motion, 0 stands still; centroid: distance to the true place, pixels of 64.
- errors are mean absolute differences to the true edited clip, 0 to 1. Flicker: error along the true motion, colours 0
  to 255, where the background is seen and on the object; colour deviation: of the object's colour over the frames.
- mean and covariance shift: of a temporal module's output against its input, relative, mean over modules.
- seconds and memory are of a machine that did other work at times: compare within a table only.
"""


def document(found: list[dict], parts: dict[str, set], chosen_from: list[dict]) -> str:
    """The page beside the results."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in asdict(Settings()).items())
    texts = [ABOUT.format(settings=settings), tables(found, parts)]
    if chosen_from:
        texts += ["## choose: 3 other clips", choice(chosen_from)]
    return "\n\n".join(texts)


def _ordinary(row: dict) -> bool:
    return all(row[field.name] == getattr(Settings(), field.name) for field in fields(Settings))


def tables(found: list[dict], parts: dict[str, set]) -> str:
    """Everything, part by part."""
    texts = []
    for part, wanted in parts.items():
        chosen = [row for row in found if identity(row) in wanted]
        if chosen:
            clips, seeds = (len({row[name] for row in chosen}) for name in ("clip", "seed"))
            left = "" if len(chosen) == len(wanted) else f" (unfinished: {len(chosen)} of {len(wanted)} runs)"
            texts.append(f"## {part}: {clips} clips, {seeds} seeds{left}")
        for weight in sorted({row["weight"] for row in chosen}, reverse=True):
            same = [row for row in chosen if row["weight"] == weight]
            texts += [f"The edit's own words at weight {weight:g}:"] if part == "words" else []
            texts += [summary(same), by_edit(same)]
            if part in ("budgets", "words"):
                texts += [f"With {max(row['steps'] for row in same)} steps:", differences(same)]
        if chosen and part == "modules":
            texts += [against(chosen)]
        if chosen and part in ("control", "ablation"):
            compared = {"control": ("per-frame", "Tune-A-Video", "EI² r=2"), "ablation": ()}[part]
            clips = {(row["clip"], row["clip_seed"]) for row in chosen}
            plain = [row for row in found if row["method"] in compared and _ordinary(row)
                     and (row["clip"], row["clip_seed"]) in clips]  # fmt: skip
            texts += [by_kind([*plain, *chosen])]
        if chosen and part == "main":
            texts += [differences(chosen), differences(chosen, other="per-frame"), per_clip(chosen)]
    return "\n\n".join(texts)
