"""What a comparison of two runs says: per curve the difference, the noise it is held against, and a verdict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records.signals import Series
from nbdebug.records.view import Points


class Verdict(StrEnum):
    """Whether a branch did better than its parent, by more than other random numbers would explain.

    ``UNDECIDED``: too few other seeds to tell.
    """

    BETTER = "better"
    WORSE = "worse"
    WITHIN_NOISE = "within noise"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True)
class SeriesComparison:
    """One curve of ``run`` against the same of ``parent``, over the steps that both have.

    ``parent_level`` and ``run_level`` are means over the last third of those steps; ``difference`` is the mean over
    all seeds of run minus parent. ``interval`` is its 95 % confidence interval, infinite where that is unknown, and
    ``noise`` the standard deviation of the parent's level from seed to seed, NaN where that is unknown. ``confidence``
    (0 to 1) is that of the verdict, 0 where it is undecided. ``parent_curve``, ``run_curve`` and ``difference_curve``
    are for drawing.
    """

    series: Series
    lower_is_better: bool
    parent_level: float
    run_level: float
    difference: float
    interval: tuple[float, float]
    noise: float
    confidence: float
    verdict: Verdict
    parent_curve: Points
    run_curve: Points
    difference_curve: Points

    @property
    def relative(self) -> float:
        """The difference as a share of the parent's level; 0 where that is 0."""
        return self.difference / abs(self.parent_level) if self.parent_level else 0.0

    def __str__(self) -> str:
        difference = f", difference {self.difference:+.3g}" if math.isfinite(self.difference) else ""
        low, high = self.interval
        interval = f" [{low:+.3g}, {high:+.3g}]" if math.isfinite(low) and math.isfinite(high) else ""
        noise = f"±{self.noise:.2g}" if math.isfinite(self.noise) else "unknown"
        sure = f" ({self.confidence:.0%})" if self.verdict is not Verdict.UNDECIDED else ""
        return (
            f"{self.series.text}: {self.parent_level:.4g} → {self.run_level:.4g}{difference}{interval}, "
            f"noise {noise}: {self.verdict}{sure}"
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """``run`` against ``parent``, steps ``first_step`` to ``last_step``, with ``seeds`` other seeds for the noise.

    ``verdict`` is that of the first row: the validation loss, or the training loss without validation. ``caveat`` is
    empty, or says in what the comparison limps.
    """

    parent: str
    run: str
    first_step: int
    last_step: int
    seeds: int
    rows: tuple[SeriesComparison, ...]
    verdict: Verdict
    sentence: str
    caveat: str = ""

    def __str__(self) -> str:
        lines = [self.sentence, *(f"({self.caveat})" for _ in [0] if self.caveat)]
        return "\n".join([*lines, *(f"  {row}" for row in self.rows)])
