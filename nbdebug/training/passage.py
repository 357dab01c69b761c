"""The journey under way, if any: set out, go on piece by piece, arrive, or be called off. Training thread only.

Whatever happens on the way, the model ends at the place it was to go to, or where it was before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.status import State
from nbdebug.training.course import OTHER_BATCHES
from nbdebug.training.guard import StepStopped
from nbdebug.training.journey import Journey
from nbdebug.training.mailbox import Ticket

if TYPE_CHECKING:
    from nbdebug.training.session import Session

Ended = tuple[Ticket | None, "str | Exception"]


class Passage:
    """At most one journey of a session, and the ticket of the command that asked for it."""

    def __init__(self, session: Session) -> None:
        self.journey: Journey | None = None
        self.ticket: Ticket | None = None
        self._session = session

    def begin(self, journey: Journey) -> str | None:
        """Set out; the outcome's text, or ``None`` when it will come on arrival.

        Raises:
            CommandError: it could not begin, and nothing is changed.
        """
        try:
            journey.set_out()
        except CommandError:
            raise
        except Exception as error:  # state_dict code of the user's, a loader that no longer has its batches
            self._back_to_the_start_of(journey)
            raise CommandError(f"could not go back, nothing is changed: {type(error).__name__}: {error}") from error
        if not journey.is_short:
            self.journey = journey
            self._session.become(State.REWINDING)
            return None
        return self._arrive(journey)

    def go_on(self) -> Ended | None:
        """One piece of the way; when it is at its end, whose command that was, and its text or what went wrong."""
        journey = self.journey
        assert journey is not None
        try:
            if not journey.advance():
                return None
        except StepStopped as stopped:  # in a search for the first bad step
            self.journey = None
            self._session.halts.found_earlier(stopped.reason, journey.run)
            return None
        except BaseException as error:  # the user's code may raise anything; the model goes back to where it was
            return self.call_off(f"could not go back: {type(error).__name__}: {error}")
        ticket, self.ticket = self.ticket, None
        try:
            return ticket, self._arrive(journey)
        except Exception as error:  # as in Controller.apply
            self._session.become(State.PAUSED)
            return ticket, error

    def call_off(self, why: str) -> Ended:
        """End the journey before its end; the model is where it was."""
        session, journey = self._session, self.journey
        assert journey is not None
        ticket, self.ticket = self.ticket, None
        session.halts.called_off()
        self._back_to_the_start_of(journey)
        session.paused_by_itself = True
        session.become(State.PAUSED, why)
        here = f"the model is where it was, at step {session.loop.step:,} of {session.timeline.current!r}"
        return ticket, CommandError(f"{why}; {here}")

    def _arrive(self, journey: Journey) -> str:
        session = self._session
        self.journey = None
        session.timeline.here = journey.reached
        if session.state is State.REWINDING:
            session.state = State.PAUSED
        session.paused_by_itself = True
        self._say_what_was_unlike(journey)
        text = journey.arrive()
        if session.at_rest:
            session.course.rest()
        return text

    def _say_what_was_unlike(self, journey: Journey) -> None:
        if journey.other_batches:
            self._session.course.give_caveat(OTHER_BATCHES)
        elif journey.unlike:
            why = (
                f"On the way back to step {journey.target.step:,}, {journey.unlike}. Something that training depends "
                "on is not in nbdebug's hands: put it into Trainer(state=...); on a GPU, use deterministic algorithms."
            )
            title = "A repeated step came out otherwise"
            self._session.find(Cause.NOT_REPRODUCIBLE, Severity.WARNING, title, why)

    def _back_to_the_start_of(self, journey: Journey) -> None:
        session = self._session
        self.journey = None
        session.restore(journey.tip.load())
        session.timeline.here = journey.tip.place
        session.course.rest()
