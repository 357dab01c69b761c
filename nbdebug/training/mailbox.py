"""Where commands wait for the next safe point. Posted from any thread, taken by the training thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nbdebug.records.commands import Command, Outcome
from nbdebug.records.errors import ClosedError


@dataclass
class Reservation:
    """Holds a session for one who has several commands to give, such as a comparison; others' are refused meanwhile.

    ``activity`` says in words what is going on; ``cancelled`` is set when somebody asks to pause or stop.
    ``quiet``: breakpoints and values that are not finite stop nothing meanwhile. ``home`` is the run that the model
    held before.
    """

    activity: str = ""
    cancelled: bool = False
    quiet: bool = False
    home: str = ""


@dataclass
class Errand:
    """Something to be run on the training thread between two steps, which changes nothing; ``what`` in words."""

    what: str
    function: Callable[[], Any]
    result: Any = None
    error: BaseException | None = None

    def run(self) -> None:
        """Do it, and keep what came of it."""
        try:
            self.result = self.function()
        except BaseException as error:  # it is raised again where it was asked for
            self.error = error


@dataclass
class Ticket:
    """A command on its way, and later what became of it. ``holder`` is the reservation under which it was given."""

    command: Command | Errand
    holder: Reservation | None = None
    outcome: Outcome | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """The outcome, or ``None`` if there is none within the time."""
        self._done.wait(timeout_s)
        return self.outcome

    def settle(self, outcome: Outcome | None) -> None:
        """Say what became of it; nothing is to be said of an errand."""
        self.outcome = outcome
        self._done.set()


class Mailbox:
    """A queue of tickets that can be closed: then nothing is accepted any more, and nobody waits."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()
        self._changed = threading.Condition()
        self.closed = False

    def post(self, command: Command | Errand, holder: Reservation | None = None) -> Ticket:
        """Leave a command; returns at once.

        Raises:
            ClosedError: the mailbox is closed.
        """
        ticket = Ticket(command, holder)
        with self._changed:
            if self.closed:
                raise ClosedError("this debugger is closed: make a new Debugger(model, trainer) to go on")
            self._tickets.append(ticket)
            self._changed.notify()
        return ticket

    def close(self) -> None:
        """Accept nothing more, and wake whoever waits."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    @property
    def holds_any(self) -> bool:
        """Whether somebody left a command."""
        return bool(self._tickets)

    def asks_for(self, *kinds: type[Any]) -> bool:
        """Whether a command of such a kind waits."""
        with self._changed:
            return any(isinstance(ticket.command, kinds) for ticket in self._tickets)

    def take(self, *, wait: bool) -> Ticket | None:
        """The oldest ticket; with ``wait``, sleeps until there is one or the mailbox is closed."""
        with self._changed:
            while wait and not self._tickets and not self.closed:
                self._changed.wait()
            return self._tickets.popleft() if self._tickets else None
