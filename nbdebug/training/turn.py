"""The process-wide turn: one training step at a time, first come, first served.

torch's generators are global, so two debuggers that train at once must take turns; a plain lock would let one of
them starve the other. Owned by nobody, taken by each training thread around a step, or around several short ones.
"""

from __future__ import annotations

import threading
import time
from collections import deque

from nbdebug.training.rng import OwnRandomState

LONGEST_HOLD_S = 0.01


class Turn:
    """A fair mutual exclusion: who waits longest is handed the turn next. Not re-entrant."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @property
    def wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    def take(self) -> None:
        """Wait for the turn."""
        with self._guard:
            if not self._taken:
                self._taken = True
                return
            called = threading.Event()
            self._waiting.append(called)
        called.wait()

    def give(self) -> None:
        """Hand it on."""
        with self._guard:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


PROCESS_TURN = Turn()


class Turns:
    """One session's turns, each with its own random state in force: ``with turns: ...``. One thread at a time.

    Changing the random state takes longer than a tiny step, so the turn may be held over several: :meth:`hold` takes
    it, :meth:`let_go` or :meth:`let_go_if_due` end that. Inside, ``with turns`` is the same turn.
    """

    def __init__(self, random: OwnRandomState) -> None:
        self._random = random
        self._depth = 0
        self._holding = False
        self._since = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            PROCESS_TURN.take()
            self._random.enter()
            self._since = time.perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._random.leave()
            PROCESS_TURN.give()

    def hold(self) -> None:
        """Have the turn from now on."""
        if not self._holding:
            self.__enter__()
            self._holding = True

    def let_go(self) -> None:
        """Have it no longer."""
        if self._holding:
            self._holding = False
            self.__exit__()

    def let_go_if_due(self, now: float) -> None:
        """The same when somebody else waits for it, or after a while; ``now`` as ``time.perf_counter`` gives it."""
        if self._holding and (PROCESS_TURN.wanted or now - self._since > LONGEST_HOLD_S):
            self.let_go()
