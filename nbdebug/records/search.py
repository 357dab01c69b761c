"""A search over knobs: what was tried, as branches from one place, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from nbdebug.records.commands import Changes

ACTIVITY = "searching"  # how the status of a search under way begins
WIDE = 100.0  # times: a range as wide is searched, and drawn, on a log scale


class SearchEngine(StrEnum):
    """What chooses the settings: all combinations or a draw at random, or Optuna, which learns from those before."""

    RANDOM = "random"
    OPTUNA = "optuna"


@dataclass(frozen=True)
class Trial:
    """One setting, trained on the branch ``run``; ``score`` is NaN where it did not stay finite.

    ``ended`` says why it was ended before its time, empty if it was not. ``number`` counts trials as they were made,
    ``setting`` has the values by the names under which they were asked for.
    """

    changes: Changes
    run: str
    score: float
    steps: int
    ended: str = ""
    number: int = 0
    setting: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchResult:
    """All trials, the best first: by ``measure``, lower or higher being better. Prints as a table.

    Tried from after ``step`` of ``run``, ``steps`` each, out of ``space``: by knob a list of values, or a pair
    (low, high). ``planned`` trials were to be made: there are fewer while it goes on, and where ``note`` says why not
    all were. ``number`` counts the searches of a session.
    """

    measure: str
    lower_is_better: bool
    trials: tuple[Trial, ...]
    space: Mapping[str, Any] = field(default_factory=dict)
    engine: SearchEngine = SearchEngine.RANDOM
    planned: int = 0
    steps: int = 0
    run: str = "main"
    step: int = 0
    number: int = 0
    note: str = ""

    @property
    def best(self) -> Trial:
        """The best of those that went to their end.

        Raises:
            LookupError: no trial was made.
        """
        if not self.trials:
            raise LookupError("no trial was made")
        return self.trials[0]

    @property
    def sentence(self) -> str:
        """The outcome in a line."""
        good = next((trial for trial in self.trials if not math.isnan(trial.score)), None)
        made = len(self.trials)
        count = f"{made} of {self.planned} trials" if made < self.planned else f"{made} trial{'s' if made != 1 else ''}"
        told = f"best {good.changes}: {self.measure} {good.score:.4g}" if good is not None else "none stayed finite"
        return f"{count}, {told}" if made else "no trial was made"

    def __str__(self) -> str:
        width = max((len(str(trial.changes)) for trial in self.trials), default=5)
        lines = [f"{'tried':{width}}  {self.measure:>12}  steps  run"]
        for trial in self.trials:
            score = "not finite" if math.isnan(trial.score) else f"{trial.score:.6g}"
            note = f"  ({trial.ended})" if trial.ended else ""
            lines.append(f"{trial.changes!s:{width}}  {score:>12}  {trial.steps:>5}  {trial.run}{note}")
        return "\n".join([*lines, *([self.note] if self.note else [])])


@dataclass(frozen=True)
class SearchOptions:
    """What a search can be by: measures, the first one by default, each with whether lower is better.

    ``missing`` are the engines that can't be used, each with the reason; ``restore_s`` is what a trial takes besides
    its steps.
    """

    measures: tuple[tuple[str, bool], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    restore_s: float = 0.0


def is_log(low: float, high: float) -> bool:
    """Whether a range is searched on a log scale."""
    return low > 0 and high / low >= WIDE


def ranked(trials: tuple[Trial, ...], lower: bool) -> tuple[Trial, ...]:
    """The best first: those that went to their end, then those that were ended, last what is not finite."""

    def rank(trial: Trial) -> tuple[bool, bool, float]:
        bad = math.isnan(trial.score)
        return bad, bool(trial.ended), 0.0 if bad else trial.score if lower else -trial.score

    return tuple(sorted(trials, key=rank))
