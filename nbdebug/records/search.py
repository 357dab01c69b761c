"""A search over knobs: what was tried, as branches from one place, and what came of it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from nbdebug.records.commands import Changes


@dataclass(frozen=True)
class Trial:
    """One setting, trained on the branch ``run``; ``score`` is NaN where it did not stay finite.

    ``ended`` says why it was ended before its time, empty if it was not.
    """

    changes: Changes
    run: str
    score: float
    steps: int
    ended: str = ""


@dataclass(frozen=True)
class Search:
    """All trials, the best first: by ``measure``, lower or higher being better. Prints as a table."""

    measure: str
    lower_is_better: bool
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The best of those that went to their end."""
        return self.trials[0]

    def __str__(self) -> str:
        width = max(len(str(trial.changes)) for trial in self.trials)
        lines = [f"{'tried':{width}}  {self.measure:>12}  steps  run"]
        for trial in self.trials:
            score = "not finite" if math.isnan(trial.score) else f"{trial.score:.6g}"
            note = f"  ({trial.ended})" if trial.ended else ""
            lines.append(f"{trial.changes!s:{width}}  {score:>12}  {trial.steps:>5}  {trial.run}{note}")
        return "\n".join(lines)
