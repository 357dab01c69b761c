"""Remedies that are tried: what it takes, how far it is, what came of it; as the browser is to show it. Pure."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from nbdebug.dashboard import ability, words
from nbdebug.dashboard.figures.panel import Floats, Json
from nbdebug.records.commands import ApplyRemedy, TryRemedy
from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.proofs import Proof, Trial
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points, View

COLUMNS = 60
MOST_SHARE = 0.97  # of a bar whose length was foretold
SAID = {
    Verdict.BETTER: "It helps",
    Verdict.WORSE: "It makes it worse",
    Verdict.WITHIN_NOISE: "No difference beyond noise",
    Verdict.UNDECIDED: "Too few seeds to tell",
}


def state(view: View | None, clock: Callable[[], float] = time.time) -> Json:
    """What trying a remedy takes, by cause; which one is under way; why one came to nothing, by cause and rung."""
    if view is None:
        return {"blocked": ability.STORED, "costs": {}, "trial": None, "refusals": {}}
    return {
        "blocked": ability.blocked(view),
        "costs": {each.cause: cost(each) for each in view.trials},
        "trial": _under_way(view.trial, view.status.activity, clock()) if view.trial else None,
        "refusals": _refusals(view),
    }


def cost(trial: Trial) -> str:
    """``about 12 s: 10 reruns of 120 steps``."""
    reruns = f"{words.plural(trial.reruns, 'rerun')} of {words.plural(trial.steps, 'step')}"
    return f"{words.about(trial.seconds)}: {reruns}" if trial.seconds > 0 else reruns


def proof(view: View, cause: str, rung: int) -> Json:
    """What came of a remedy, of several trials the latest; ``None`` if it was never tried."""
    found = [each for each in view.proofs if (str(each.finding.cause), each.rung) == (cause, rung)]
    return _proof(found[-1], view) if found else None


def applied(view: View | None) -> list[Proof]:
    """Of those that helped, whose branch the model holds or came from."""
    line = _lineage(view) if view is not None else set()
    return [each for each in (view.proofs if view is not None else ()) if each.helped and each.run in line]


def _proof(made: Proof, view: View) -> Json:
    row = made.comparison.rows[0] if made.comparison.rows else None
    return {
        "verdict": str(made.comparison.verdict),
        "helped": made.helped,
        "said": SAID[made.comparison.verdict],
        "numbers": _numbers(made.comparison, row) if row is not None else "",
        "sentence": made.comparison.sentence,
        "picture": _curves(row) if row is not None else None,
        "applied": made.run in _lineage(view),
        "gone": made.run not in {run.run.name for run in view.runs},
    }


def _numbers(made: Comparison, row: SeriesComparison) -> str:
    """``validation loss 0.187 → 0.142 (−24 %), 99.8 % sure · steps 101 to 300, 4 seeds``."""
    change = f" ({100 * row.relative:+.0f} %)".replace("-", "−") if math.isfinite(row.relative) else ""
    decided = row.verdict in (Verdict.BETTER, Verdict.WORSE) and row.confidence > 0
    sure = f", {100 * min(row.confidence, 0.999):.1f} % sure" if decided else ""
    about = f"steps {words.count(made.first_step)} to {words.count(made.last_step)}, {words.plural(made.seeds, 'seed')}"
    return (
        f"{called(row.series)} {words.number(row.parent_level)} → {words.number(row.run_level)}{change}{sure} · {about}"
    )


def called(series: Series) -> str:
    """``validation loss``, ``accuracy/val``."""
    split = {Split.TRAIN: "training loss", Split.VAL: "validation loss"}.get(series.split or Split.TRAIN, series.text)
    return split if series.signal is Signal.LOSS and not series.name else series.text


def _curves(row: SeriesComparison) -> Json:
    """Without and with it, each as means over stretches of steps."""
    ends = [
        int(points.steps[at]) for points in (row.parent_curve, row.run_curve) if points.steps.size for at in (0, -1)
    ]
    if not ends:
        return None
    edges = np.linspace(min(ends) - 0.5, max(ends) + 0.5, min(COLUMNS, max(ends) - min(ends) + 1) + 1)
    rows = [_means(points, edges) for points in (row.parent_curve, row.run_curve)]
    values = [[float(f"{value:.4g}") if math.isfinite(value) else None for value in row] for row in rows]
    title = f"{called(row.series)}, steps {words.count(min(ends))} to {words.count(max(ends))}"
    return {"kind": "lines", "title": title, "values": values, "rows": ["without it", "with it"], "columns": []}


def _means(points: Points, edges: Floats) -> Floats:
    """The mean of the finite values in each stretch, NaN where there is none."""
    known = np.isfinite(points.values)
    at = np.searchsorted(edges, points.steps[known]) - 1
    amount = np.bincount(at, minlength=len(edges) - 1)
    total = np.bincount(at, weights=points.values[known], minlength=len(edges) - 1)
    means: Floats = np.divide(total, amount, out=np.full(len(edges) - 1, np.nan), where=amount > 0)
    return means


def _under_way(trial: Trial, activity: str, now_s: float) -> Json:
    share = min(MOST_SHARE, max(0.0, now_s - trial.began_s) / trial.seconds) if trial.seconds > 0 else 0.0
    return {"cause": trial.cause, "rung": trial.rung, "doing": activity, "share": round(share, 2)}


def _refusals(view: View) -> dict[str, str]:
    """By cause and rung, why the latest wish came to nothing."""
    found: dict[str, str] = {}
    for outcome in view.outcomes:
        if isinstance(outcome.command, TryRemedy | ApplyRemedy):
            key = f"{outcome.command.cause} {outcome.command.rung}"
            found.pop(key, None)
            if not outcome.ok:
                found[key] = outcome.text
    return found


def _lineage(view: View) -> set[str]:
    """The run in the model, and those that it came from."""
    parents = {run.run.name: run.run.parent for run in view.runs}
    line, at = set[str](), view.status.run
    while at and at not in line:
        line.add(at)
        at = parents.get(at) or ""
    return line
