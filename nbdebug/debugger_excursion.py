"""Several commands in a row on a session that is held meanwhile, after which the model is where it was. Any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar

from nbdebug.records.commands import Checkout, Command, DropSnapshot, Outcome, Pause, Resume, TakeSnapshot
from nbdebug.records.errors import CommandError
from nbdebug.records.status import State
from nbdebug.training.mailbox import Reservation
from nbdebug.training.session import Session

T = TypeVar("T")
INTERRUPT_S = 30.0  # for the present step to end, and the model to be put back


def ask(session: Session, command: Command, hold: Reservation) -> Outcome:
    """Give a command and wait for what becomes of it.

    Raises:
        CommandError: it was refused, or the session was closed.
    """
    outcome = session.post(command, hold).wait()
    if outcome is None or not outcome.ok:
        raise CommandError(outcome.text if outcome else "closed before it was done")
    return outcome


def interruptibly(session: Session, what: str, work: Callable[[], T], hold: Reservation) -> T:
    """Do something on the training thread; an interrupt of this one calls it off, and takes what there is then."""
    found, done = list[T](), threading.Event()

    def run() -> None:
        try:
            found.append(work())
        finally:
            done.set()

    try:
        session.call(what, run, hold)
    except KeyboardInterrupt:
        hold.cancelled = True
        done.wait(INTERRUPT_S)
        if not found:
            raise
    return found[0]


@contextmanager
def excursion(session: Session, hold: Reservation, name: str) -> Iterator[str]:
    """Whatever is done inside, the model and the goal are as they were; training goes on if it was running.

    Gives the name of the snapshot that is come back to, which is called ``name`` meanwhile.
    """
    state, stop = session.state, session.halts.stop
    if state is State.RUNNING:
        ask(session, Pause(), hold)
    goal = replace(session.goal)
    home = ask(session, TakeSnapshot(name), hold).made
    try:
        yield home
    finally:
        ask(session, Pause(), hold)  # after an interrupt, a rerun or a way back may be under way
        ask(session, Checkout(snapshot=home), hold)
        ask(session, DropSnapshot(home), hold)
        if stop is not None:
            session.call("standing at the stop again", lambda: session.halts.stand_again(stop), hold)
        session.goal = goal
        session.become(State.PAUSED if state in (State.RUNNING, State.PAUSED) else State.IDLE)
        if state is State.RUNNING and not hold.cancelled:
            ask(session, Resume(), hold)
