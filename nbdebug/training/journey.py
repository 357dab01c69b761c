"""A journey back: a snapshot put into the model, then the steps and interventions after it done again. Training thread.

It goes on by one small piece per call, so that a command to call it off is heard in between. What is repeated is held
against the record: a loss that comes out otherwise, or another batch, is told and not hidden.
"""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nbdebug.records.status import Replay
from nbdebug.training.shelf import Kept
from nbdebug.training.timeline import Place, Timeline

if TYPE_CHECKING:
    from nbdebug.training.session import Session


class Journey:
    """From a snapshot to a place that can be reached from it. ``tip`` is the present, to come back to if it fails."""

    def __init__(self, session: Session, start: Kept, target: Place, tip: Kept, arrive: Callable[[], str]) -> None:
        self.target = target
        self.tip = tip
        self.arrive = arrive
        self.unlike = ""
        self.other_batches = False
        self._session = session
        self._start = start
        self._legs = legs_from(session.timeline, start, target)
        self._applied = start.place.applied
        self._total = target.step - start.place.step
        self._began = 0.0

    @property
    def is_short(self) -> bool:
        """Whether nothing is to be done but to restore the snapshot."""
        leg = self._legs[0]
        return len(self._legs) == 1 and self._total == 0 and self._applied == leg.applied and not self._is_short_of(leg)

    @property
    def run(self) -> str:
        """The run that is being repeated now."""
        return self._legs[0].run

    @property
    def replay(self) -> Replay:
        """How far it is."""
        done = min(self._session.loop.step - self._start.place.step, self._total)
        spent_s = time.perf_counter() - self._began if self._began else 0.0
        each_s = spent_s / done if done else self._session.seconds_per_step
        return Replay(self.target.run, self.target.step, done, self._total, each_s * (self._total - done))

    def set_out(self) -> None:
        """Put the snapshot into the model."""
        self._session.restore(self._start.load())
        self._began = time.perf_counter()

    def advance(self) -> bool:
        """Do one step, intervention or change of run; whether the place is reached."""
        leg, loop = self._legs[0], self._session.loop
        line = self._session.timeline.lines[leg.run]
        due = line.interventions[self._applied] if self._applied < leg.applied else None
        if due is not None and (loop.step, loop.epoch) >= (due.step, due.epoch):
            self._session.redo(due, line.random.get(self._applied))
            self._applied += 1
        elif due is not None or self._is_short_of(leg):
            self._step(leg)
        elif len(self._legs) > 1:
            self._legs.pop(0)
            self._applied = 0
        else:
            return True
        return False

    @property
    def reached(self) -> Place:
        """The place where the model is, when it is there."""
        loop = self._session.loop
        return Place(self.target.run, loop.step, loop.epoch, self.target.applied)

    def _is_short_of(self, leg: Place) -> bool:
        loop = self._session.loop
        return loop.step < leg.step or (loop.step == leg.step and loop.epoch < leg.epoch)

    def _step(self, leg: Place) -> None:
        session = self._session
        loss, epoch_over = session.stepper.replay()
        if loss is not None:
            self._compare(leg.run, loss)
        if epoch_over and (loss is None or not self._stood_before_its_end(leg)):
            session.turns.let_go()
            session.loop.finish_epoch()

    def _stood_before_its_end(self, leg: Place) -> bool:
        """Whether training stood still after the epoch's last step and before its end, and something was done there."""
        loop = self._session.loop
        next_ones = self._session.timeline.lines[leg.run].interventions[self._applied : leg.applied]
        here = (loop.step, loop.epoch)
        return here == (leg.step, leg.epoch) or any(here == (made.step, made.epoch) for made in next_ones[:1])

    def _compare(self, run: str, loss: float) -> None:
        timeline, step = self._session.timeline, self._session.loop.step
        recorded = timeline.loss_of(run, step)
        if recorded is not None and not same(recorded, loss) and not self.unlike:
            self.unlike = f"at step {step:,} the loss was {recorded!r} and is now {loss!r}"
        known, now = timeline.batch_of(run, step), self._session.loop.batch_sum
        self.other_batches |= bool(known and now and known != now)


def legs_from(timeline: Timeline, start: Kept, target: Place) -> list[Place]:
    """The way from a snapshot to a place, as the places at which each run on it is left.

    Raises:
        CommandError: it leads over a change by hand.
    """
    legs = timeline.lineage(target)
    while legs[0].run != start.place.run:
        legs.pop(0)
    applied = start.place.applied
    for leg in legs:
        timeline.refuse_outside_edits(leg, applied)
        applied = 0
    return legs


def epochs_between(timeline: Timeline, start: Kept, target: Place) -> int:
    """How many ends of epochs, validation included, lie on the way."""
    legs = legs_from(timeline, start, target)
    ends = [end for leg in legs for end in timeline.lines[leg.run].epoch_ends if end <= leg.step]
    return sum(start.place.step < end <= target.step for end in ends)


def same(a: float, b: float) -> bool:
    """Equal bit by bit, but for the kind of NaN."""
    return (math.isnan(a) and math.isnan(b)) or struct.pack("d", a) == struct.pack("d", b)
