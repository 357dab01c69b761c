"""Finding a learning rate, by method and for the dashboard's button. Any thread; not from within a step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from nbdebug.debugger_excursion import interruptibly
from nbdebug.journal.journal import Journal
from nbdebug.records.commands import FindLr, Outcome
from nbdebug.records.errors import collect
from nbdebug.records.finder import ACTIVITY, LrCurve
from nbdebug.tools import lr_finder, range_test
from nbdebug.training.mailbox import Reservation
from nbdebug.training.session import Session
from nbdebug.training.thread_context import ThreadContext


class RateFinding:
    """The learning-rate range test."""

    _session: Session
    _journal: Journal
    _not_from_within: Callable[[str], None]

    @property
    def lr_curve(self) -> LrCurve | None:
        """The latest curve that :meth:`find_lr` or the dashboard made, ``None`` without any."""
        return next(reversed(self._journal.lr_curves), None)

    def find_lr(self, low: float = 1e-7, high: float = 10.0, steps: int = 100) -> LrCurve:
        """Try learning rates from ``low`` to ``high``, one a step, and suggest some; leaves everything as it was.

        Takes up to ``steps`` of your own training steps on your loader, from where the model is: at the start, or in
        the midst of training. Where training runs, it stands still meanwhile, and goes on as before. All parameter
        groups keep the ratio that they have, the first one gets the rate; clipping stays, schedules stand still. It
        ends early where the loss runs away. An interrupt, ``pause()`` or ``stop()`` ends it, too, with what there is.

        ``debugger.set(lr=debugger.find_lr().suggestion)`` takes the best. What your step does outside of torch, such as
        printing or counting, it does here as well, unless ``state`` names it.

        Raises:
            ConfigurationError: lists all that is wrong with the arguments; nothing is done then.
            CommandError: it was ended too soon to tell anything, or something else holds the model.
            Exception: what your step or loader raised; everything is as it was.
        """
        command = FindLr(low, high, steps)
        self._not_from_within("find_lr")
        try:
            if mistakes := lr_finder.mistakes(low, high, steps):
                raise collect(mistakes)
            with self._session.reserved(ACTIVITY) as hold:
                curve = self._test(command, hold)
        except Exception as error:
            self._tell(command, False, str(error) or type(error).__name__)
            raise
        self._journal.record_lr_curve(curve)
        self._tell(command, True, curve.sentence)
        return curve

    # -- inside -------------------------------------------------------------------------------------------------

    def _test(self, command: FindLr, hold: Reservation) -> LrCurve:
        """On the training thread; an interrupt of this one ends it."""
        session = self._session

        def tell(count: int, rate: float) -> None:
            hold.activity = f"{ACTIVITY}: step {count + 1} of {command.steps}, at {rate:.1e}"

        conduct = range_test.Conduct(ThreadContext.capture(), lambda: hold.cancelled or session.is_called_off, tell)

        def test() -> LrCurve:
            return range_test.run(session, float(command.low), float(command.high), command.steps, conduct)

        return interruptibly(session, "testing learning rates", test, hold)

    def _tell(self, command: FindLr, ok: bool, text: str) -> None:
        """On record: the outcome, and nothing of the test."""
        session = self._session
        self._journal.record_outcome(Outcome(command, session.timeline.current, session.loop.step, ok, text))

    def _find_lr_aside(self, command: FindLr) -> None:
        """A test asked for on the dashboard: on a thread of its own, since it waits."""

        def find() -> None:
            with suppress(Exception):  # the user's code may raise anything; it is told as the outcome
                self.find_lr(command.low, command.high, command.steps)

        threading.Thread(target=find, name="nbdebug learning rates", daemon=True).start()
