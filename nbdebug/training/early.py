"""Early stopping: no new best for so many validations ends the run, the best one being kept. Training thread."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nbdebug.records.findings import Cause, Severity
from nbdebug.records.signals import Series, Signal
from nbdebug.records.snapshots import Reason
from nbdebug.records.status import State

if TYPE_CHECKING:
    from nbdebug.training.session import Session


@dataclass(frozen=True)
class Patience:
    """What is watched: ``loss`` or a metric's name on the validation data, lower or higher being better.

    An improvement is one by more than ``least``; ``epochs`` without one end the run.
    """

    name: str
    epochs: int
    least: float
    lower: bool


class EarlyStopping:
    """Ends one session's runs; ``best`` names the snapshot of the best epoch so far."""

    def __init__(self, session: Session) -> None:
        self.patience: Patience | None = None
        self.best = ""
        self._session = session
        self._run = ""
        self._value = math.inf
        self._kept = math.inf
        self._waited = 0

    def watch(self, patience: Patience | None) -> None:
        """From now on; ``None`` never ends a run."""
        self.patience, self._run, self._kept = patience, "", math.inf

    def epoch_ended(self, values: dict[Series, float]) -> bool:
        """Whether the run should end after these numbers of a validation."""
        patience, session = self.patience, self._session
        if patience is None:
            return False
        present = next((value for series, value in values.items() if _name_of(series) == patience.name), None)
        if present is None:
            return False
        if session.timeline.current != self._run:
            self._run, self._value, self._waited = session.timeline.current, math.inf, 0
        value = present if patience.lower else -present
        if value < self._value - (patience.least if math.isfinite(self._value) else 0.0):
            self._value, self._waited = value, 0
            if value < self._kept:  # of all runs
                self._kept = value
                self._keep(present)
            return False
        self._waited += 1
        return self._waited >= patience.epochs

    def end(self) -> None:
        """The run ends here."""
        patience, session = self.patience, self._session
        assert patience is not None
        best = self._value if patience.lower else -self._value
        title = f"Stopped early: {patience.name} has not improved for {patience.epochs} validations"
        why = f"The best of this run was {best:.6g}. go_to_best() puts the best epoch of all into the model."
        if not math.isfinite(best):
            why = f"{patience.name} was never a number."
        session.find(Cause.EARLY_STOP, Severity.INFO, title, why)
        self._waited = 0
        session.become(State.IDLE, title[0].lower() + title[1:])

    def _keep(self, value: float) -> None:
        session, patience = self._session, self.patience
        assert patience is not None
        old = self.best
        kept = session.course.take(Reason.REQUEST, name=f"best {patience.name} {value:.4g}", pinned=True)
        self.best = kept.name if kept is not None else old
        if kept is not None and old:
            session.course.shelf.drop(old)
            session.recorder.record_snapshots(session.course.shelf.infos())


def _name_of(series: Series) -> str:
    return series.name if series.signal is Signal.METRIC else str(series.signal)
