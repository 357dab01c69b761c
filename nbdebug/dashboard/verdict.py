"""The latest comparison in words and numbers, as the browser is to show it. Pure; drawing thread."""

from __future__ import annotations

import math

from nbdebug.dashboard import tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.tree import Legend
from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.view import View

HEADS = ("difference", "95 % interval", "noise", "verdict", "sure")


def state(view: View, legend: Legend | None = None) -> Json:
    """The verdict's sentence and a row per curve; ``None`` when nothing was compared."""
    made = view.comparison
    if made is None:
        return None
    parent, run = tree.shown(view, made.parent), tree.shown(view, made.run)
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
    names = [found.run.name if (found := tree.named(view.runs, each)) else "" for each in (made.parent, made.run)]
    parent, run = known.get(names[0], "mute"), known.get(names[1], "branch")
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
        _sure(row),
    ]


def _sure(row: SeriesComparison) -> str:
    """How sure "better" or "worse" is; of another verdict the figure says something else, and would mislead here."""
    if row.verdict not in (Verdict.BETTER, Verdict.WORSE) or not row.confidence > 0:
        return "–"
    return f"{100 * row.confidence:.1f} %" if row.confidence < 0.9995 else "> 99.9 %"
