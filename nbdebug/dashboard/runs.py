"""The table of runs, as the browser is to show it. Pure; drawing thread."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nbdebug.dashboard import ability, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.tree import Branch, Legend, ordered, training
from nbdebug.records.runs import RunKind
from nbdebug.records.view import Points, RunView, View

LOWER_IS_BETTER = frozenset(
    {"error", "err", "loss", "mse", "mae", "rmse", "mape", "perplexity", "ppl", "nll", "bce", "wer", "cer", "fid"}
    | {"distance", "divergence"}
)
LONGEST_PARENT = 24
NOISE = "reruns under other seeds"
LOSSES = ("train", "val")


@dataclass(frozen=True, slots=True)
class _Column:
    """A measured quantity: its head, its value in each run that has one, and the best of them."""

    head: str
    values: Mapping[str, float]
    best: float | None


def state(view: View, legend: Legend | None = None) -> Json:
    """Column heads, and one row per run in the order of the tree; why nothing can be done, what a step costs."""
    legend = legend or Legend()
    columns = _columns(training(view.runs), view)
    tones = legend.tones(view.runs)
    drawn = {run.run.name for run in legend.drawn(view)}
    shown = {run.run.name: run.run.shown for run in view.runs}
    parents = _parents(view)
    rows = [
        _row(branch, columns, shown, parents)
        | {
            "colour": tones[branch.run.run.name],
            "drawn": branch.run.run.name in drawn,
            "in_model": branch.run.run.name == view.status.run and not view.stored,
        }
        for branch in ordered(view.runs)
    ]
    return {
        "heads": ["run", "what changed", "from", "steps", *(column.head for column in columns), "note"],
        "rows": rows,
        "summary": _summary(len(rows), len(drawn), len(view.runs) - len(rows)),
        "blocked": ability.blocked(view),
        "stored": view.stored,
        "step_s": float(f"{ability.step_s(view):.2g}"),
    }


def _row(
    branch: Branch, columns: Sequence[_Column], shown: Mapping[str, str], parents: Mapping[str, list[str]]
) -> dict[str, Json]:
    run, name = branch.run.run, branch.run.run.name
    origin = "start" if run.parent is None else f"{_short(shown, run.parent)} @ {words.count(run.step)}"
    values = [column.values.get(name) for column in columns]
    cells = [run.change or "–", origin, words.count(branch.run.steps)]
    cells += ["–" if value is None else words.number(value) for value in values]
    return {
        "name": name,
        "title": run.shown,
        "guides": [str(guide) for guide in branch.guides],
        "noise": f"{words.plural(branch.noise, 'rerun')} under other seeds" if branch.noise else "",
        "cells": cells,
        "best": [3 + i for i, value in enumerate(values) if value is not None and value == columns[i].best],
        "caveat": run.caveat,
        "note": run.note,
        "pinned": run.pinned,
        "steps": branch.run.steps,
        "compare": _no_compare(branch.run),
        "delete": _no_delete(branch.run, parents.get(name, [])),
    }


def _short(shown: Mapping[str, str], run: str) -> str:
    return words.shorten(shown.get(run, run), LONGEST_PARENT)


def _no_compare(run: RunView) -> str:
    """Why a run can't be compared with its parent; empty when it can."""
    if run.run.parent is None:
        return "no parent to compare it with"
    return "" if run.steps > 0 else "no step taken yet"


def _no_delete(run: RunView, children: Sequence[str]) -> str:
    """Why a run can't be deleted, the model's place left aside; empty when it can."""
    if run.run.parent is None and run.run.step == 0:
        return "the first run can't be deleted"
    if children:
        more = " and others" if len(children) > 3 else ""
        return f"{', '.join(children[:3])}{more} came from it: delete what came from it first"
    return ""


def _parents(view: View) -> dict[str, list[str]]:
    """What came from each run: branches by title, and reruns under other seeds."""
    parents: dict[str, list[str]] = {}
    for run in view.runs:
        if run.run.parent is not None:
            noise = run.run.kind is RunKind.NOISE
            told = parents.setdefault(run.run.parent, [])
            told += [] if noise and NOISE in told else [NOISE if noise else run.run.shown]
    return parents


def _columns(runs: Sequence[RunView], view: View) -> list[_Column]:
    """Losses and metrics with their values; the best of two and more is known where the direction is."""
    train = {run.run.name: value for run in runs if (value := _last(run.smooth, run.train)) is not None}
    val = {run.run.name: value for run in runs if (value := _last(run.val)) is not None}
    metrics = dict.fromkeys(name for run in runs for name, _ in run.metrics)
    measured = {name: {run.run.name: dict(run.metrics).get(name) for run in runs} for name in metrics}
    known = {row.series.text: row.lower_is_better for row in view.comparison.rows} if view.comparison else {}
    columns = [
        _Column(head, values, _best(values, lower=True)) for head, values in zip(LOSSES, (train, val), strict=True)
    ]
    for name, maybe in measured.items():
        values = {run: value for run, value in maybe.items() if value is not None}
        columns.append(_Column(name, values, _best(values, lower=known.get(name, lower_is_better(name)))))
    return columns


def lower_is_better(metric: str) -> bool:
    """Whether a metric's name says so: one of its words is error, loss, mse and the like."""
    parts = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", metric)
    return any(part.lower() in LOWER_IS_BETTER for part in parts)


def _best(values: Mapping[str, float], *, lower: bool) -> float | None:
    finite = [value for value in values.values() if math.isfinite(value)]
    if len(finite) < 2 or min(finite) == max(finite):
        return None
    return min(finite) if lower else max(finite)


def _last(*curves: Points) -> float | None:
    """The last value of the first curve that has one."""
    return next((float(points.values[-1]) for points in curves if points.values.size), None)


def _summary(runs: int, drawn: int, noise: int) -> str:
    if runs < 2:
        return ""
    parts = [words.plural(runs, "run")] + ([f"{drawn} drawn"] if drawn < runs else [])
    return " · ".join(parts + ([f"{words.plural(noise, 'rerun')} under other seeds"] if noise else []))
