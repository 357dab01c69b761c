"""What a comparison of two runs says: per curve the difference, the noise it is held against, and a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nbdebug.records.signals import Series
from nbdebug.records.view import Points


class Verdict(StrEnum):
    """Whether a branch did better than its parent, by more than other random numbers would explain."""

    BETTER = "better"
    WORSE = "worse"
    WITHIN_NOISE = "within noise"


@dataclass(frozen=True, slots=True)
class SeriesComparison:
    """One curve of ``run`` against the same of ``parent``, over the steps that both have.

    ``parent_level`` and ``run_level`` are means over the last third of those steps; ``difference`` is the mean over
    all seeds of run minus parent, ``interval`` its 95 % confidence interval, ``noise`` the standard deviation of the
    parent's level from seed to seed. ``confidence`` (0 to 1) is that of the verdict. ``parent_curve``, ``run_curve``
    and ``difference_curve`` are for drawing.
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
        for row in self.rows:
            low, high = row.interval
            lines.append(
                f"  {row.series.text}: {row.parent_level:.4g} → {row.run_level:.4g}, difference {row.difference:+.3g} "
                f"[{low:+.3g}, {high:+.3g}], noise ±{row.noise:.2g}: {row.verdict} ({row.confidence:.0%})"
            )
        return "\n".join(lines)
