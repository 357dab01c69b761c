"""The latest comparison in words and numbers, as the browser is to show it. Pure; drawing thread."""

from __future__ import annotations

import math

from nbdebug.dashboard import words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.tree import Legend
from nbdebug.records.comparison import Comparison, SeriesComparison
from nbdebug.records.view import View

HEADS = ("difference", "95 % interval", "noise", "verdict", "sure")


def state(view: View, legend: Legend | None = None) -> Json:
    """The verdict's sentence and a row per curve; ``None`` when nothing was compared."""
    made = view.comparison
    if made is None:
        return None
    shown = {run.run.name: run.run.shown for run in view.runs}
    parent, run = (shown.get(name, name) for name in (made.parent, made.run))
    return {
        "title": f"{run} against {parent}",
        "verdict": str(made.verdict),
        "sentence": made.sentence,
        "caveat": made.caveat,
        "heads": ["", parent, run, *HEADS],
        "tones": list(tones(legend or Legend(), view, made)),
        "rows": [{"cells": _cells(row), "verdict": str(row.verdict)} for row in made.rows],
        "about": f"steps {words.count(made.first_step)} to {words.count(made.last_step)}, "
        + (f"{words.plural(made.seeds, 'other seed')} each" if made.seeds else "no other seeds"),
    }


def tones(legend: Legend, view: View, made: Comparison) -> tuple[str, str]:
    """The colours of parent and run: their own, or two that differ where one is gone or both are the same."""
    known = legend.tones(view.runs)
    parent, run = known.get(made.parent, "mute"), known.get(made.run, "branch")
    return parent, run if run != parent else "ink"


def signed(value: float) -> str:
    """A difference with its sign, three digits: ``−0.045``."""
    if not math.isfinite(value):
        return words.number(value)
    return ("+" if value > 0 else "−" if value < 0 else "") + words.number(abs(value))


def _cells(row: SeriesComparison) -> list[str]:
    relative = f" ({100 * row.relative:+.1f} %)".replace("-", "−") if math.isfinite(row.relative) else ""
    low, high = row.interval
    return [
        row.series.text,
        words.number(row.parent_level),
        words.number(row.run_level),
        signed(row.difference) + relative,
        f"{signed(low)} to {signed(high)}" if math.isfinite(low) and math.isfinite(high) else "–",
        f"±{words.number(row.noise)}" if math.isfinite(row.noise) else "–",
        str(row.verdict),
        f"{100 * row.confidence:.1f} %" if row.confidence > 0 else "–",
    ]
