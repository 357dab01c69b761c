"""A curve summed up: where it began, where it is, how it scatters; robust against odd values. Pure numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Skip
from nbdebug.checks.live.window import Window
from nbdebug.records.frames import Floats

RECENT = 20
BEFORE = 20  # steps before a change by hand that say where it began
UNSURE = 0.1  # of the loss: the most that its scatter may account for
LEARNT = 0.5  # of the baseline, below which a network has learnt something


@dataclass(frozen=True, slots=True)
class Course:
    """The training loss since the last change by hand: ``start`` before it, ``now``, ``best``, ``noise`` of a step.

    Without a change ``start`` is the very first loss, the only one that no update had a part in.
    ``values`` are the finite ones at ``steps``. ``now`` and ``best`` are medians over up to 20 steps.
    """

    steps: NDArray[np.int64]
    values: Floats
    start: float
    now: float
    best: float
    noise: float
    baseline: float

    @property
    def reference(self) -> float:
        """What a network that has learnt nothing would have: the worse of where it began and the baseline."""
        return float(np.fmax(self.start, self.baseline))

    @property
    def has_learnt(self) -> bool:
        """Whether the loss is well below that of a constant prediction, or below where it began, if that is unknown."""
        known = np.isfinite(self.baseline) and self.baseline > 0
        return self.now < LEARNT * self.baseline if known else self.fallen > 1 - LEARNT

    @property
    def fallen(self) -> float:
        """The share of its start that the loss lost; negative where it rose. NaN where losses have no fixed zero."""
        return (self.start - self.now) / self.start if self.start > 0 and self.best > 0 else float("nan")

    def surely_fallen(self, width: int = RECENT) -> float:
        """The least share lost between its first stretch and its latest, where weights hardly moved within either.

        Medians of the two, less two standard errors of their difference, a tenth at most.
        """
        width = max(min(width, len(self.values) // 3), 1)
        first, latest = float(np.median(self.values[:width])), float(np.median(self.values[-width:]))
        if first <= 0 or self.best <= 0:
            return float("nan")
        error = self.noise * np.sqrt(np.pi / 2) * np.sqrt(2 / width) / first
        return float((first - latest) / first - min(2 * error, UNSURE))

    def levels(self, count: int) -> Floats:
        """The medians of so many stretches of equal length, oldest first."""
        return np.array([np.median(each) for each in np.array_split(self.values, count)])


def course(window: Window, fewest: int = 10) -> Course:
    """The training loss so far.

    Raises:
        Skip: there are fewer than ``fewest`` finite values since the last change, or most are not finite.
    """
    curve = window.loss.since(window.since_change)
    finite = np.isfinite(curve.values)
    values = curve.values[finite]
    if len(values) < fewest or 2 * len(values) < len(curve):
        raise Skip("too few losses since the start or the last change")
    before = window.loss.values[: len(window.loss) - len(curve)]
    before = before[np.isfinite(before)][-BEFORE:]
    start = float(np.median(before)) if len(before) else float(values[0])
    recent = min(RECENT, max(len(values) // 2, 5))
    return Course(
        curve.steps[finite], values, start, float(np.median(values[-recent:])), _best(values, recent),
        scatter(values[-5 * recent :]), window.facts.baseline,
    )  # fmt: skip


def _best(values: Floats, width: int) -> float:
    whole = len(values) // width * width
    return float(np.median(values[len(values) - whole :].reshape(-1, width), axis=1).min())


def scatter(values: Floats) -> float:
    """The standard deviation of one value about its neighbours, by the median of differences."""
    if len(values) < 3:
        return 0.0
    return float(np.median(np.abs(np.diff(values))) / 0.6745 / np.sqrt(2))


def slope(values: Floats) -> float:
    """The median slope over all pairs (Theil 1950, Sen 1968), per value."""
    i, j = np.triu_indices(len(values), 1)
    return float(np.median((values[j] - values[i]) / (j - i)))


def agreement(values: Floats) -> float:
    """Kendall's tau against time: 1 where every later value is larger, -1 where smaller."""
    i, j = np.triu_indices(len(values), 1)
    return float(np.mean(np.sign(values[j] - values[i])))


def is_whole(steps: NDArray[np.int64]) -> bool:
    """Whether nearly every step is there: a thinned curve keeps extremes, so that its shape is another."""
    return len(steps) > 1 and len(steps) > 0.8 * (steps[-1] - steps[0] + 1)
