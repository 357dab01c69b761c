"""What a comparison makes of a curve: the steps compared, its level at their end, and what is drawn. Any thread."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points

MOST_POINTS = 2000


@dataclass(frozen=True, slots=True)
class Window:
    """The steps compared, both ends included."""

    first: int
    last: int

    @property
    def steps(self) -> int:
        """How many."""
        return self.last - self.first + 1

    @property
    def half_life(self) -> float:
        """Of the smoothing, in steps."""
        return max(3.0, self.steps / 30)


def cut(curves: Mapping[Series, Points], window: Window) -> dict[Series, Points]:
    """The losses and metrics in the steps compared, without those that have no point there."""
    kept = {}
    for series, points in curves.items():
        inside = (points.steps >= window.first) & (points.steps <= window.last)
        if series.signal in (Signal.LOSS, Signal.METRIC) and inside.any():
            kept[series] = Points(points.steps[inside], points.values[inside])
    return kept


def level(curve: Points, series: Series, window: Window, worst: float) -> float:
    """The mean of the finite values in the last third: of the points for validation, else of the steps.

    ``worst`` where the curve ends NaN or infinite: it has diverged.
    """
    if not np.isfinite(curve.values[-1]):
        return worst
    if series.split is Split.VAL:
        stretch = curve.values[-math.ceil(curve.values.size / 3) :]
    else:
        stretch = curve.values[curve.steps > window.last - math.ceil(window.steps / 3)]
    finite = stretch[np.isfinite(stretch)]
    return float(finite.mean()) if finite.size else float(curve.values[-1])


def smoothed(curve: Points, half_life: float) -> Points:
    """A moving average that forgets by half in ``half_life`` steps, without the pull of its start. 0: as it is.

    What is not finite is passed over in the average and kept in its place.
    """
    finite = np.isfinite(curve.values)
    if not half_life or not finite.any():
        return curve
    weights = np.where(finite, 2.0 ** ((curve.steps - curve.steps[-1]) / half_life), 0.0)
    totals = np.cumsum(weights * np.where(finite, curve.values, 0.0))
    return Points(curve.steps, np.where(finite, totals / np.maximum(np.cumsum(weights), 1e-300), curve.values))


def mean_difference(parents: Sequence[Points], runs: Sequence[Points]) -> Points:
    """Run minus parent at the steps that all have, averaged over seeds; NaN from where one of them is not finite."""
    steps = functools.reduce(np.intersect1d, [curve.steps for curve in (*parents, *runs)])
    with np.errstate(invalid="ignore"):
        run, parent = (
            np.mean([curve.values[np.isin(curve.steps, steps)] for curve in curves], axis=0)
            for curves in (runs, parents)
        )
        return Points(steps, run - parent)


def thinned(curve: Points) -> Points:
    """At most ``MOST_POINTS`` of its points, evenly, the last one among them."""
    every = math.ceil(curve.steps.size / MOST_POINTS) or 1
    return Points(curve.steps[::-every][::-1], curve.values[::-every][::-1])  # the last point stays
