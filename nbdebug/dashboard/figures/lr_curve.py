"""The curve of a learning-rate range test: loss by rate, with the rates that it suggests and the one in force.

Pure; drawing thread. Traces: ``raw`` and ``smooth``, over the rates tested. The loss axis ends a little above where the
curve began: what it ran away to would flatten all that matters.
"""

from __future__ import annotations

import math

import numpy as np
import plotly.graph_objects as go

from nbdebug.dashboard import finder, theme, words
from nbdebug.dashboard.figures.panel import Drawing, Floats, Json, cover
from nbdebug.records.finder import LrCurve
from nbdebug.records.view import View

EMPTY = "no range test was made yet: it tries growing rates, one a step, and puts everything back as it was"
ABOVE = 0.35  # of the fall, how far the axis goes on above the beginning
HEIGHTS = 5  # on which labels are written, so that none covers another: one for each there can be
LABEL_SHARE = 0.016  # of a narrow chart's width, a letter
SHORT = {
    "steepest descent": "steepest",
    "middle of the valley": "valley",
    "half of the diverging rate": "diverging / 2",
}


class LrCurvePanel:
    """The latest curve."""

    name = "lr_curve"
    title = "Loss by learning rate"
    tab = finder.FINDER_TAB
    period_s = 0.0

    def inputs(self, view: View) -> tuple[object, ...]:
        """The curve, and the rate in force."""
        return (view.lr_curve, repr(finder.in_force(view)), int(view.stored))

    def draw(self, view: View) -> Drawing:
        """The curve as it was measured."""
        curve = view.lr_curve
        if curve is None or not curve.rates.size:
            return cover(EMPTY)
        shapes, labels = _lines(curve, finder.in_force(view))
        return Drawing(
            readout=readout(curve),
            structure="",
            arrays={
                ("raw", "x"): curve.rates, ("raw", "y"): curve.losses,
                ("smooth", "x"): curve.rates, ("smooth", "y"): curve.smooth,
            },
            layout={
                "shapes": shapes,
                "annotations": labels,
                "xaxis": {"range": span(curve)},
                "yaxis": {"range": heights(curve)},
                "meta": {"able": not view.stored},
            },
        )  # fmt: skip

    def skeleton(self, view: View) -> go.Figure:
        """One chart over a log axis."""
        figure = go.Figure()
        colour, hover = theme.tone("train"), "<b>%{y:.4g}</b> at %{x:.2e}<extra></extra>"
        figure.add_scatter(
            name="raw", mode="lines", line={"color": colour, "width": 1}, opacity=0.35, hovertemplate=hover
        )
        figure.add_scatter(name="smooth", mode="lines", line={"color": colour, "width": 2.2}, hovertemplate=hover)
        figure.update_layout(
            template=theme.template(),
            margin={"l": 54, "t": 74, "r": 14},
            xaxis={"type": "log", "title": {"text": "learning rate"}, "dtick": 1, "exponentformat": "e"},
            yaxis={"tickformat": "~g", "nticks": 6},
        )
        return figure


def readout(curve: LrCurve) -> str:
    """``best 3.2e-3 (steepest descent) · lowest loss at 3.0e-2 · ran away at 4.1e-1``."""
    parts = [f"best {words.rate(rate)} ({name})" for name, rate in curve.suggestions[:1]]
    known = np.flatnonzero(np.isfinite(curve.smooth))
    if known.size:
        lowest = known[int(np.argmin(curve.smooth[known]))]
        parts.append(f"lowest loss at {words.rate(float(curve.rates[lowest]))}")
    if curve.diverged_at is not None:
        parts.append(f"ran away at {words.rate(curve.diverged_at)}")
    return " · ".join(parts)


def span(curve: LrCurve) -> list[float]:
    """The ends of the rates, as powers of ten."""
    low, high = math.log10(curve.rates[0]), math.log10(curve.rates[-1])
    room = 0.03 * (high - low) or 0.5
    return [low - room, high + room]


def heights(curve: LrCurve) -> list[float]:
    """The ends of the loss axis."""
    known = curve.smooth[np.isfinite(curve.smooth)]
    if not known.size:
        return [0.0, 1.0]
    low, first = float(known.min()), _beginning(known)
    fall = max(first - low, 0.02 * max(abs(first), abs(low))) or 1.0
    raw = curve.losses[np.isfinite(curve.losses)]
    top, bottom = first + ABOVE * fall, max(float(raw.min()), low - ABOVE * fall)
    return [min(low, bottom) - 0.06 * fall, top]


def _beginning(known: Floats) -> float:
    """The highest of the first part, before anything was learned."""
    return float(known[: max(1, known.size // 3)].max())


def _lines(curve: LrCurve, present: float | None) -> tuple[list[Json], list[Json]]:
    """A line and a label for each suggestion, the best one strong, and for the rate in force."""
    low, high = span(curve)
    told = [
        (
            rate,
            f"{SHORT.get(name, name)} {words.rate(rate)}",
            "ok" if index == 0 else "mute",
            "solid" if index == 0 else "dash",
        )
        for index, (name, rate) in enumerate(curve.suggestions)
    ]
    if present is not None and present > 0 and low <= math.log10(present) <= high:
        told.append((present, f"in force {words.rate(present)}", "ink", "dot"))
    shapes: list[Json] = []
    labels: list[Json] = []
    for (rate, text, colour, dash), level in zip(told, _levels(told, low, high), strict=True):
        at, left = math.log10(rate), _leans_left(math.log10(rate), low, high)
        line = {"color": theme.tone(colour), "width": 1.8 if dash == "solid" else 1.1, "dash": dash}
        shapes.append({"type": "line", "x0": rate, "x1": rate, "yref": "paper", "y0": 0, "y1": 1, "line": line})
        labels.append(
            {
                "x": at, "y": 1, "yref": "paper", "text": words.plain(text), "showarrow": False,
                "xanchor": "right" if left else "left", "yanchor": "bottom", "yshift": 1 + 14 * level,
                "xshift": 4 if left else -4, "font": {"size": 10.5, "color": theme.tone(colour)},
            }
        )  # fmt: skip
    return shapes, labels


def _levels(told: list[tuple[float, str, str, str]], low: float, high: float) -> list[int]:
    """For each label the lowest height at which it covers no other; from left to right."""
    taken: list[list[tuple[float, float]]] = [[] for _ in range(HEIGHTS)]
    found = dict.fromkeys(range(len(told)), HEIGHTS - 1)
    for index in sorted(found, key=lambda each: told[each][0]):
        at, width = math.log10(told[index][0]), LABEL_SHARE * (len(told[index][1]) + 2) * (high - low)
        start = at - width if _leans_left(at, low, high) else at
        for level, others in enumerate(taken):
            if all(start + width < other[0] or start > other[1] for other in others):
                found[index] = level
                others.append((start, start + width))
                break
    return list(found.values())


def _leans_left(at: float, low: float, high: float) -> bool:
    """Whether a label is written to the left of its line, for want of room at its right."""
    return at > low + 0.62 * (high - low)
