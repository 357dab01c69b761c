"""What the training thread owes the process: leave interrupts to the main thread, and be gone before it ends."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import weakref
from collections.abc import Callable
from typing import Any

EXIT_TIMEOUT_S = 10.0


def leave_interrupts_to_the_main_thread() -> None:
    """Block SIGINT here: loader workers are forked from this thread, and an interrupted kernel would kill them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def end_before_exit(owner: Any, end: Callable[[Any, float], bool]) -> Callable[[], None]:
    """Call ``end(owner, timeout_s)`` before the interpreter ends: a daemon thread inside torch would abort the process.

    ``end`` says whether the thread ended in time. Returns what takes this back. ``owner`` is not kept alive.
    """
    held = weakref.ref(owner)

    def close() -> None:
        alive = held()
        if alive is not None and not end(alive, EXIT_TIMEOUT_S):
            _leave_at_once()

    atexit.register(close)
    return lambda: atexit.unregister(close)


def _leave_at_once() -> None:
    """A step that never ends can't be joined, and torch aborts a process that ends around it: end it ourselves."""
    failed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)
