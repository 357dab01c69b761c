"""The verdict chart: a run's curve and its parent's above, their difference below, held against the noise.

Pure; drawing thread. Traces: ``parent``, ``run``, ``difference``. Below, the band around zero is what other seeds alone
do to the parent's level, and the box over the last third is the 95 % interval of the difference of the levels.
"""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import theme, tree, verdict, words
from nbdebug.dashboard.figures.panel import Drawing, Json, cover
from nbdebug.dashboard.tree import Legend
from nbdebug.records.comparison import Comparison, SeriesComparison
from nbdebug.records.view import View

LEVEL_SHARE = 1 / 3  # of the compared steps, the last, over which levels are taken


class VerdictPanel:
    """The first row of the latest comparison, which is the one that gives the verdict."""

    name = "verdict"
    title = "Verdict"
    tab = "runs"
    period_s = 0.0

    def __init__(self, legend: Legend | None = None) -> None:
        self._legend = legend or Legend()

    def inputs(self, view: View) -> tuple[object, ...]:
        """The comparison, and the runs' titles and colours."""
        tones = self._legend.tones(view.runs)
        return (view.comparison, *(run.run for run in view.runs), *tones.values())

    def draw(self, view: View) -> Drawing:
        """The curves as they are compared."""
        made = view.comparison
        if made is None or not made.rows:
            return cover("compare a run with its parent: Compare, in the table of runs")
        row = made.rows[0]
        curves = {"parent": row.parent_curve, "run": row.run_curve, "difference": row.difference_curve}
        return Drawing(
            readout=f"{row.series.text}: parent and run above, run minus parent below",
            structure=(_names(view, made), verdict.tones(self._legend, view, made), row.series.text),
            arrays={
                (name, axis): values
                for name, points in curves.items()
                for axis, values in (("x", points.steps), ("y", points.values))
            },
            layout={
                "shapes": _shapes(made, row),
                "annotations": _labels(made, row),
                "yaxis2": {"range": heights(made, row)},
            },
        )

    def skeleton(self, view: View) -> go.Figure:
        """Two charts over one step axis."""
        made = view.comparison
        assert made is not None
        (parent, run), (parent_tone, run_tone) = _names(view, made), verdict.tones(self._legend, view, made)
        figure = go.Figure()
        for name, shown, tone in (("parent", parent, parent_tone), ("run", run, run_tone)):
            figure.add_scatter(
                name=name, meta=shown, mode="lines", line={"color": theme.tone(tone), "width": 1.9},
                hovertemplate="<b>%{y:.4g}</b> at step %{x:,}<extra>%{fullData.meta}</extra>",
            )  # fmt: skip
        figure.add_scatter(
            name="difference", yaxis="y2", mode="lines", line={"color": theme.tone("ink"), "width": 1.4},
            hovertemplate="<b>%{y:+.4g}</b> at step %{x:,}<extra>difference</extra>",
        )  # fmt: skip
        figure.update_layout(
            template=theme.template(),
            uirevision=f"{parent} {run}",
            margin={"l": 54, "t": 8, "r": 10},
            xaxis={"title": {"text": "step"}, "tickformat": ",d", "nticks": 7, "anchor": "y2"},
            yaxis={"domain": [0.47, 1], "tickformat": "~g", "nticks": 5},
            yaxis2={
                "domain": [0, 0.4],
                "tickformat": "~g",
                "nticks": 4,
                "zeroline": True,
                "zerolinecolor": theme.tone("mute"),
            },
        )
        return figure


def heights(made: Comparison, row: SeriesComparison) -> list[float]:
    """The lower axis: zero, the noise, the interval, and the difference over the latter half of the steps.

    What a run did at its very start is often many times larger than all of these, and would flatten them.
    """
    curve = row.difference_curve
    late = curve.values[curve.steps >= (made.first_step + made.last_step) / 2]
    shown = np.array([0.0, row.noise, -row.noise, *row.interval, row.difference, *late])
    shown = shown[np.isfinite(shown)]
    low, high = float(shown.min()), float(shown.max())
    room = 0.14 * (high - low) or 1.0
    return [low - room, high + room]


def _names(view: View, made: Comparison) -> tuple[str, str]:
    return words.plain(tree.shown(view, made.parent)), words.plain(tree.shown(view, made.run))


def _shapes(made: Comparison, row: SeriesComparison) -> list[Json]:
    shapes: list[Json] = []
    if math.isfinite(row.noise) and row.noise > 0:
        shapes.append(_box(made.first_step, made.last_step, -row.noise, row.noise, "mute", 0.16))
    low, high = row.interval
    start, _ = _level_span(made)
    if math.isfinite(low) and math.isfinite(high):
        shapes.append(_box(start, made.last_step, low, high, "brand", 0.24))
    if math.isfinite(row.difference):
        line = {"color": theme.tone("brand"), "width": 1.6}
        ends = {"x0": start, "x1": made.last_step, "y0": row.difference, "y1": row.difference}
        shapes.append({"type": "line", "yref": "y2", **ends, "line": line})
    return shapes


def _box(x0: float, x1: float, y0: float, y1: float, tone: str, opacity: float) -> Json:
    ends = {"x0": x0, "x1": x1, "y0": y0, "y1": y1}
    look = {"fillcolor": theme.tone(tone), "opacity": opacity, "line": {"width": 0}, "layer": "below"}
    return {"type": "rect", "yref": "y2", **ends, **look}


def _level_span(made: Comparison) -> tuple[float, float]:
    return made.last_step - (made.last_step - made.first_step) * LEVEL_SHARE, made.last_step


def _labels(made: Comparison, row: SeriesComparison) -> list[Json]:
    """What the band and the box are, in small print inside the lower chart."""
    texts = []
    if math.isfinite(row.noise) and row.noise > 0:
        texts.append((made.first_step, row.noise, "left", "noise", "mute"))
    if all(map(math.isfinite, row.interval)):
        texts.append((made.last_step, row.interval[1], "right", "95 % interval", "brand"))
    return [
        {
            "x": x, "y": y, "yref": "y2", "xanchor": anchor, "yanchor": "bottom", "text": text, "showarrow": False,
            "font": {"size": 10, "color": theme.tone(tone)},
        }
        for x, y, anchor, text, tone in texts
    ]  # fmt: skip
