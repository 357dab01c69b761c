"""The process-wide turn: one training step at a time, first come, first served.

torch's generators are global, so two debuggers that train at once must take turns; a plain lock would let one of
them starve the other. Owned by nobody, taken by each training thread around a step.
"""

from __future__ import annotations

import threading
from collections import deque
from types import TracebackType


class Turn:
    """A fair mutual exclusion: who waits longest is handed the turn next. Not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            called = threading.Event()
            self._waiting.append(called)
        called.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


PROCESS_TURN = Turn()
