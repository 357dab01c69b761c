"""Points of interest on the loss curves: where branches leave, where snapshots are, which snapshot is a run's best.

Pure; drawing thread. The traces ``forks``, ``snapshots`` and ``best`` belong to the loss chart.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, words
from nbdebug.dashboard.figures.panel import Array, Floats, Json
from nbdebug.records.view import Points, RunView, View

BOTTOM = 0.014
MOST_TICKS = 80
Best = tuple[str, float, float]  # run, step, loss


def fork(run: RunView, runs: Mapping[str, RunView]) -> tuple[float, float] | None:
    """Where a branch leaves the smooth curve of its parent, or of the nearest one that has been there; step and loss.

    ``None`` for a run without a parent, and where no curve is or it is not finite there.
    """
    step, parent = run.run.step, runs.get(run.run.parent or "")
    while parent is not None and not (parent.smooth.steps.size and parent.smooth.steps[0] <= step):
        parent = runs.get(parent.run.parent or "")
    if parent is None:
        return None
    loss = float(np.interp(step, parent.smooth.steps, parent.smooth.values))
    return (float(step), loss) if math.isfinite(loss) else None


def arrays(
    view: View, runs: Sequence[RunView], forks: Mapping[str, tuple[float, float]], best: Sequence[Best]
) -> dict[tuple[str, str], Array]:
    """The points of all three traces, of the drawn ``runs``."""
    drawn = {run.run.name for run in runs}
    steps = thinned(np.unique(np.array([each.step for each in view.snapshots if each.run in drawn], np.float64)))
    return {
        ("forks", "x"): np.array([step for step, _ in forks.values()]),
        ("forks", "y"): np.array([loss for _, loss in forks.values()]),
        ("snapshots", "x"): steps,
        ("snapshots", "y"): np.full(steps.size, BOTTOM),
        ("best", "x"): np.array([step for _, step, _ in best]),
        ("best", "y"): np.array([loss for _, _, loss in best]),
    }


def thinned(steps: Floats) -> Floats:
    """Growing steps, so many that ticks at them can be told apart: the first in each stretch of a power of two."""
    if steps.size <= MOST_TICKS:
        return steps
    stretch = 2.0 ** math.ceil(math.log2(steps[-1] / MOST_TICKS))
    _, first = np.unique(steps // stretch, return_index=True)
    found: Floats = steps[first]
    return found


def patches(
    runs: Sequence[RunView], forks: Mapping[str, tuple[float, float]], best: Sequence[Best], tones: Mapping[str, str]
) -> dict[str, Mapping[str, Json]]:
    """Each point's colour, that of its run, and the name to read when pointing at it."""
    shown = {run.run.name: words.plain(run.run.shown) for run in runs}
    colours = {name: theme.tone(tones[name]) for name in shown}
    edge = {"color": theme.tone("panel"), "width": 1.2}
    named = [name for name, _, _ in best]
    return {
        "forks": {
            "marker": {"size": 6, "color": [colours[name] for name in forks], "line": edge},
            "text": [shown[name] for name in forks],
        },
        "best": {
            "marker": {"symbol": "star", "size": 12, "color": [colours[name] for name in named], "line": edge},
            "text": [shown[name] for name in named],
        },
    }


def traces() -> list[go.Scatter]:
    """The traces without points."""
    tick = {"symbol": "line-ns", "size": 7, "line": {"color": theme.tone("mute"), "width": 1}}
    return [
        go.Scatter(
            name="snapshots", yaxis="y2", mode="markers", marker=tick, opacity=0.75,
            hovertemplate="snapshot at step %{x:,}<extra></extra>",
        ),
        go.Scatter(name="forks", mode="markers", hovertemplate="%{text} leaves at step %{x:,}<extra></extra>"),
        go.Scatter(
            name="best", mode="markers", hovertemplate="best of %{text}: <b>%{y:.4g}</b> at step %{x:,}<extra></extra>"
        ),
    ]  # fmt: skip


def best_ones(view: View, runs: Sequence[RunView]) -> list[Best]:
    """The run, step and validation loss (else the smooth one) of each run's best snapshot."""
    by_name = {run.run.name: run for run in runs}
    found = []
    for each in view.snapshots:
        run = by_name.get(each.run) if each.best else None
        if run is not None:
            loss = _value_at(run.val, each.step)
            loss = _value_at(run.smooth, each.step) if loss is None else loss
            if loss is not None and math.isfinite(loss):
                found.append((each.run, float(each.step), loss))
    return found


def _value_at(points: Points, step: int) -> float | None:
    at = int(np.searchsorted(points.steps, step))
    return float(points.values[at]) if at < points.steps.size and points.steps[at] == step else None


def prepended(point: tuple[float, float], points: Points) -> tuple[Floats, Floats]:
    """A curve with one more point before its first."""
    step, loss = point
    return np.concatenate([[step], points.steps]), np.concatenate([[loss], points.values])
