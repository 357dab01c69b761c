"""Made-up curves and levels to compare."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nbdebug.records.comparison import Comparison, SeriesComparison
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points
from nbdebug.tools.comparison import Pair, compare

TRAIN = Series(Signal.LOSS, split=Split.TRAIN)
VAL = Series(Signal.LOSS, split=Split.VAL)
ACCURACY = Series(Signal.METRIC, "accuracy", Split.VAL)


def points(values: Sequence[float], first: int = 1) -> Points:
    return Points(np.arange(first, first + len(values), dtype=np.int64), np.array(values, dtype=np.float64))


def pairs(parents: Sequence[float], runs: Sequence[float | None], series: Series = VAL) -> list[Pair]:
    """One validation each: its value is the level."""
    return [
        Pair({series: points([parent])}, None if run is None else {series: points([run])})
        for parent, run in zip(parents, runs, strict=True)
    ]


def judged(parents: Sequence[float], runs: Sequence[float | None], series: Series = VAL) -> Comparison:
    return compare("main", "lr 0.0003", pairs(parents, runs, series), first_step=1, last_step=1)


def one_row(parent: Points, run: Points, series: Series, last_step: int, first_step: int = 1) -> SeriesComparison:
    pair = Pair({series: parent}, {series: run})
    return compare("main", "b", [pair], first_step=first_step, last_step=last_step).rows[0]
