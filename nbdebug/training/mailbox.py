"""Where commands wait for the next safe point. Posted from any thread, taken by the training thread."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from nbdebug.records.commands import Command, Outcome


@dataclass
class Ticket:
    """A command on its way, and later what became of it."""

    command: Command
    outcome: Outcome | None = None
    _done: threading.Event = field(default_factory=threading.Event)

    def wait(self, timeout_s: float | None = None) -> Outcome | None:
        """The outcome, or ``None`` if there is none within the time."""
        self._done.wait(timeout_s)
        return self.outcome

    def settle(self, outcome: Outcome) -> None:
        """Say what became of it."""
        self.outcome = outcome
        self._done.set()


class Mailbox:
    """A queue of tickets with a bell."""

    def __init__(self) -> None:
        self._tickets: deque[Ticket] = deque()
        self._bell = threading.Event()

    def post(self, command: Command) -> Ticket:
        """Leave a command; returns at once."""
        ticket = Ticket(command)
        self._tickets.append(ticket)
        self._bell.set()
        return ticket

    def ring(self) -> None:
        """Wake whoever waits, without a command."""
        self._bell.set()

    def take(self, *, wait: bool) -> Ticket | None:
        """The oldest ticket; with ``wait``, sleeps until there is one or the bell rings."""
        if wait and not self._tickets:
            self._bell.wait()
        self._bell.clear()
        return self._tickets.popleft() if self._tickets else None
