"""The table of runs, as the browser is to show it. Pure; drawing thread."""

from __future__ import annotations

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.view import Points, RunView, View


def state(view: View) -> Json:
    """Column heads, and one row per run, the latest first: texts, the colour's name, whether the model holds it."""
    metrics = list(dict.fromkeys(name for run in view.runs for name, _ in run.metrics))
    rows = [_row(index, run, metrics, view) for index, run in enumerate(view.runs)]
    return {"heads": ["run", "what changed", "from", "steps", "train", "val", *metrics], "rows": rows[::-1]}


def _row(index: int, run: RunView, metrics: list[str], view: View) -> Json:
    measured = dict(run.metrics)
    origin = "start" if run.run.parent is None else f"{run.run.parent} @ {words.count(run.run.step)}"
    cells = [run.run.change or "–", origin, words.count(run.steps), _last(run.smooth, run.train), _last(run.val)]
    cells += [words.number(measured[name]) if name in measured else "–" for name in metrics]
    return {
        "name": run.run.name,
        "colour": theme.run_tone(index),
        "cells": cells,
        "in_model": run.run.name == view.status.run,
    }


def _last(*curves: Points) -> str:
    """The last value of the first curve that has one."""
    return next((words.number(float(points.values[-1])) for points in curves if points.values.size), "–")
