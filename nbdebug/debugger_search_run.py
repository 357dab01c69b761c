"""A search under way: each setting on a branch from one snapshot, ended early where it is hopeless, all on record.

Gives a session commands one after the other, from any thread but the training thread; the session is held meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from nbdebug.debugger_compare import TRAIN_LOSS, curves
from nbdebug.debugger_excursion import ask, excursion
from nbdebug.debugger_search_space import Engine, parsed
from nbdebug.journal.journal import Journal
from nbdebug.records.commands import Changes, Rerun, Start
from nbdebug.records.errors import CommandError, collect
from nbdebug.records.search import ACTIVITY, SearchResult, Trial, ranked
from nbdebug.records.signals import Series
from nbdebug.records.status import State
from nbdebug.training.mailbox import Reservation
from nbdebug.training.session import Session

PARTS = 5  # that a trial of so many steps is judged in
WORSE = "worse than the median"
NOT_FINITE = "not finite"
NOT_VALIDATED = "no validation so soon"
CALLED_OFF = "the search was called off; the model is where it was"


@dataclass(frozen=True)
class Conduct:
    """How each setting is tried: for so many ``epochs``, or ``steps``, judged by ``series``."""

    epochs: int | None
    steps: int | None
    series: Series
    prune: bool

    @property
    def parts(self) -> list[int]:
        """Into what lengths a trial is divided; after each it is judged."""
        total = self.epochs if self.steps is None else self.steps
        assert total is not None
        count = total if self.steps is None else min(PARTS, total)
        ends = [round(total * (k + 1) / count) for k in range(count)]
        return [end - begin for begin, end in zip([0, *ends], ends, strict=False)]


class Tour:
    """Goes through the settings of an engine. ``found`` is what is known so far, and in the journal."""

    def __init__(
        self, session: Session, journal: Journal, engine: Engine, conduct: Conduct, planned: SearchResult
    ) -> None:
        self.found = planned
        self._session = session
        self._journal = journal
        self._engine = engine
        self._conduct = conduct
        self._parts = conduct.parts

    def go(self, activity: str) -> SearchResult:
        """Every trial, and then back; what ends it before is noted in what was found.

        Raises:
            CommandError: it was called off, or somebody else holds the session.
            Exception: what the user's code raised.
        """
        session = self._session
        with session.reserved(activity, quiet=True) as hold, excursion(session, hold, "(before a search)") as home:
            self._tell(run=session.timeline.current, step=session.loop.step)
            try:
                self._all(home, hold)
            except BaseException as error:
                called_off = hold.cancelled or isinstance(error, KeyboardInterrupt)
                why = "called off" if called_off else str(error).partition("\n")[0] or type(error).__name__
                self._tell(note=f"ended after {len(self.found.trials)} of {self.found.planned} trials: {why}")
                raise
        return self.found

    def _all(self, home: str, hold: Reservation) -> None:
        while (setting := self._engine.propose()) is not None:
            number = len(self.found.trials) + 1
            changes, wrong = parsed(self._session, setting)
            if wrong:
                raise collect(wrong)
            hold.activity = f"{ACTIVITY}: trial {number} of {self.found.planned}, {changes}{self._best_so_far()}"
            made = replace(self._trial(changes, home, hold), number=number, setting=_kept(setting))
            self._engine.finish(made.score, made.ended)
            self._tell(trials=ranked((*self.found.trials, made), self.found.lower_is_better))

    def _best_so_far(self) -> str:
        best = next(iter(self.found.trials), None)
        shown = best is not None and not math.isnan(best.score)
        return f"; best so far {self.found.measure} {best.score:.4g}" if best is not None and shown else ""

    def _tell(self, **changes: Any) -> None:
        self.found = replace(self.found, **changes)
        self._journal.record_search(self.found)

    def _trial(self, changes: Changes, home: str, hold: Reservation) -> Trial:
        session, score, run, ended, begin = self._session, math.nan, "", "", 0
        for part, length in enumerate(self._parts):
            epochs, steps = (length, None) if self._conduct.steps is None else (None, length)
            if part == 0:
                run = ask(session, Rerun(home, epochs, steps, changes), hold).made
                begin = session.timeline.runs[run].step
            else:
                ask(session, Start(epochs, steps), hold)
            self._wait(hold)
            last = part == len(self._parts) - 1
            found = self._score(run, begin, session.loop.step)
            if found is None:  # no validation so far
                ended = NOT_VALIDATED if last else ""
                continue
            score = found
            if not math.isfinite(score):
                score, ended = math.nan, NOT_FINITE
                break
            hopeless = self._engine.is_hopeless(part, score)
            if self._conduct.prune and not last and hopeless:
                ended = WORSE
                break
        return Trial(changes, run, score, session.loop.step - begin, ended)

    def _wait(self, hold: Reservation) -> None:
        session = self._session
        session.wait(lambda state: state not in (State.RUNNING, State.REWINDING))
        if hold.cancelled:
            raise CommandError(CALLED_OFF)
        if session.failure is not None and session.state is State.FAILED:
            raise session.failure.exception

    def _score(self, run: str, begin: int, here: int) -> float | None:
        """The measure at the end of a part, if it was taken; of training losses the mean over it."""
        series = self._conduct.series
        points = curves(self._journal, run, begin, here).get(series)
        if points is None or not len(points.values):
            return None
        if series != TRAIN_LOSS:
            return float(points.values[-1])
        begun = here - max(1, (here - begin) // len(self._parts))
        return float(points.values[points.steps > begun].mean())


def _kept(setting: Mapping[str, Any]) -> dict[str, Any]:
    """For the record: by names that are text."""
    return {str(name): value for name, value in setting.items()}
