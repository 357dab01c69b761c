"""Where a session takes what is asked of it: commands and errands out of the mailbox, at safe points. Training thread.

Whoever has reserved the session is heard alone, but for those who ask to pause or stop.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nbdebug.records.commands import EditRun, Outcome, Pause, Stop
from nbdebug.records.errors import ClosedError, CommandError
from nbdebug.records.findings import Cause, Severity
from nbdebug.training.control import Controller
from nbdebug.training.mailbox import Errand, Mailbox, Reservation, Ticket
from nbdebug.training.passage import Ended, Passage

if TYPE_CHECKING:
    from nbdebug.training.session import Session

CLOSED = "closed before it could be applied"


class Reception:
    """Hears one session's mailbox. ``passage`` is the way back that is under way, if one is."""

    def __init__(self, session: Session) -> None:
        self.mailbox = Mailbox()
        self.reserved: Reservation | None = None
        self.passage = Passage(session)
        self._session = session
        self._controller = Controller(session)

    def go_on(self) -> None:
        """One piece of the way back."""
        self._end_passage(self.passage.go_on())

    def end(self) -> None:
        """The session is closed: a way back is called off, and what was asked for is refused."""
        if self.passage.journey is not None:
            self._end_passage(self.passage.call_off(CLOSED))
            self._session.come_to_rest()
        self.refuse_the_rest()

    def heed(self) -> None:
        """Carry out what was asked for; at rest, wait for something to be asked."""
        while True:
            self._session.come_to_rest()
            ticket = self.mailbox.take(wait=self._session.at_rest)
            if ticket is None:
                return
            self._apply(ticket)

    def refuse_the_rest(self) -> None:
        """Nothing is carried out any more."""
        while (ticket := self.mailbox.take(wait=False)) is not None:
            if isinstance(ticket.command, Errand):
                ticket.command.error = ClosedError(CLOSED)
                ticket.settle(None)
            else:
                ticket.settle(
                    Outcome(ticket.command, self._session.timeline.current, self._session.loop.step, False, CLOSED)
                )

    def _apply(self, ticket: Ticket) -> None:
        command, ends = ticket.command, isinstance(ticket.command, Pause | Stop)
        refused = self._refusal(ticket)
        if isinstance(command, Errand):
            self._run_errand(command, refused)
            ticket.settle(None)
            return
        if refused:
            self._settle(ticket, self._controller.refusal(command, CommandError(refused)))
            return
        if self.reserved is not None and ticket.holder is not self.reserved and ends:
            self.reserved.cancelled = True
        if self._session.halts.under_way and isinstance(command, Pause):
            self._settle(ticket, self._controller.success(command, "training is coming to a stop"))
            return
        if self.passage.journey is not None and ends:
            self._end_passage(self.passage.call_off("called off"))
        outcome = self._controller.apply(command)
        if outcome is None:
            self.passage.ticket = ticket
        else:
            self._settle(ticket, outcome)

    def _run_errand(self, errand: Errand, refused: str) -> None:
        if refused:
            errand.error = CommandError(refused)
            return
        errand.run()
        self._session.come_to_rest()

    def _refusal(self, ticket: Ticket) -> str:
        """Why a command can't be heard now: somebody else holds the session, or the model is on its way."""
        if isinstance(ticket.command, Pause | Stop | EditRun):
            return ""
        if self.reserved is not None and ticket.holder is not self.reserved:
            return f"not now: {self.reserved.activity}; stop() calls it off"
        if self.passage.journey is not None:
            return f"not now: on the way back to step {self.passage.journey.target.step:,}; pause() calls it off"
        return ""

    def _end_passage(self, ended: Ended | None) -> None:
        ticket, result = ended if ended is not None else (None, "")
        if ticket is None or isinstance(ticket.command, Errand):
            if isinstance(result, Exception):  # nobody asked for it, so nobody would hear
                self._session.find(
                    Cause.NOT_REPRODUCIBLE, Severity.WARNING, "The way back to a step failed", str(result)
                )
            return
        self._session.notify()
        if isinstance(result, str):
            self._settle(ticket, self._controller.success(ticket.command, result))
        else:
            self._settle(ticket, self._controller.refusal(ticket.command, result))

    def _settle(self, ticket: Ticket, outcome: Outcome) -> None:
        """Whoever waits for it may draw random numbers as soon as it has it: by then the turn is given back."""
        if self._session.at_rest:
            self._session.come_to_rest()
        self._session.recorder.record_outcome(outcome)
        ticket.settle(outcome)
