"""The dashboard: one Board, one drawing thread, and the two functions that tie it to a debugger.

The drawing thread pulls a view when a browser wants a frame, and only then; it sends what changed. Messages from the
browser arrive on a kernel thread: commands are decoded and posted right there, the rest is left for the drawing
thread. The training thread is never entered.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from nbdebug.dashboard import fallback, messages
from nbdebug.dashboard.board import Board
from nbdebug.dashboard.lens import Lens
from nbdebug.dashboard.picture import Painter, Picture, default_panels, difference
from nbdebug.dashboard.stream import Stream
from nbdebug.dashboard.tree import Legend
from nbdebug.records.commands import Command
from nbdebug.records.view import Focus, View

log = logging.getLogger(__name__)

MAX_POINTS = 16_384  # all that a journal holds of a curve: what is drawn is what history gives
PERIOD_S = 0.1
CALM_PERIOD_S = 0.25
CALM_AFTER = 10


@dataclass(frozen=True, slots=True)
class Sent:
    """What went to browsers so far. ``frames`` and ``bytes`` leave out plotly.js, ``plotlies`` counts its sendings."""

    pulls: int = 0
    frames: int = 0
    bytes: int = 0
    plotlies: int = 0


class Dashboard:
    """What a debugger shows. Public methods may be called on any thread.

    ``pull(max_points, focus)`` returns the present view, with at most so many points per curve, and what the focus asks
    for; ``post`` takes a command and returns at once. Both are called on threads of the dashboard's and the kernel's,
    never on the training thread.
    """

    def __init__(self, pull: Callable[[int, Focus], View], post: Callable[[Command], None]) -> None:
        self._pull = pull
        self._post = post
        self._legend = Legend()
        self._lens = Lens()
        self._painter = Painter(default_panels(self._legend, self._lens), self._legend, self._lens)
        self._stream = Stream(period_s=PERIOD_S)
        self._inbox: deque[Mapping[str, Any]] = deque()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._board: Board | None = None
        self._thread: threading.Thread | None = None
        self._picture: Picture = {}
        self._last_words = "nbdebug: debugger closed"
        self._sent = Sent()
        self._next_pull = 0.0
        self._unchanged = 0

    @property
    def sent(self) -> Sent:
        """How much was pulled and sent."""
        return self._sent

    def mimebundle(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The widget's view, and the same in words, for ``_repr_mimebundle_``. The first call makes the widget."""
        with self._lock:
            if self._board is None:
                self._board = Board(self._hear)
                if self._closed.is_set():
                    self._finish(self._board)
                else:
                    self._thread = threading.Thread(target=self._run, name="nbdebug-drawing", daemon=True)
                    self._thread.start()
        bundle = self._board._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        text = self._last_words if self._closed.is_set() else fallback.text(self._look())
        return {**data, "text/plain": text}, metadata

    def close(self) -> None:
        """Stop drawing; the thread is joined. The last picture stays on the page, its controls disabled."""
        with self._lock:
            if self._closed.is_set():
                return
            self._closed.set()
        self._wake.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._board is not None:
            self._finish(self._board)

    def _look(self) -> View:
        return self._pull(MAX_POINTS, self._lens.focus())

    def _finish(self, board: Board) -> None:
        """Leave the last picture with the widget, so that a reload shows it too, and let go of the debugger."""
        try:
            view = self._look()
            self._picture, self._last_words = self._painter.paint(view, whole=True), fallback.text(view)
        except Exception:  # a debugger that was closed already may refuse; the last picture drawn remains
            log.debug("nbdebug: no last picture", exc_info=True)
        board.hear = _Epitaph(board, self._picture)
        frame = difference({}, self._picture)
        if frame is not None and self._stream.live:
            board.send_frame(self._stream.views, 0, whole=True, head=frame[0], values=frame[1])
        board.send_closed()

    # --- on a kernel thread

    def _hear(self, message: Mapping[str, Any]) -> None:
        if message.get("type") == "command":
            command = messages.decode(message)
            if command is not None:
                self._try_post(command)
        self._inbox.append(message)
        self._wake.set()

    def _try_post(self, command: Command) -> None:
        try:
            self._post(command)
        except Exception:  # this thread is the kernel's: a refusal that is raised is told in the log
            log.exception("nbdebug: %r could not be passed on", command)

    # --- on the drawing thread

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(self._wait_s(time.monotonic()))
            self._wake.clear()
            try:
                self._tick()
            except Exception:  # the dashboard must not end training, nor end for one bad moment
                log.exception("nbdebug: drawing failed; trying again in 2 s")
                self._next_pull = time.monotonic() + 2.0

    def _wait_s(self, now: float) -> float | None:
        wait_s = self._stream.wait_s(now)
        return None if wait_s is None else max(wait_s, self._next_pull - now)

    def _tick(self) -> None:
        while self._inbox:
            self._serve(self._inbox.popleft())
        now = time.monotonic()
        self._stream.expire(now)
        due = self._stream.due(now)
        if not due or now < self._next_pull:
            return
        self._picture = self._painter.paint(self._look())
        self._sent = replace(self._sent, pulls=self._sent.pulls + 1)
        changed = [self._send(views, has) for views, has in _alike(due)]
        self._unchanged = 0 if any(changed) else self._unchanged + 1
        self._next_pull = now + (CALM_PERIOD_S if self._unchanged > CALM_AFTER else PERIOD_S)

    def _serve(self, message: Mapping[str, Any]) -> None:
        view, board = message["view"], self._board
        match message.get("type"):
            case "bye":
                self._stream.bye(view)
                self._lens.open_tab(view, "")
            case "ready":
                self._stream.ready(view)
                self._lens.open_tab(view, str(message.get("tab") or ""))
                self._next_pull = 0.0
            case "plotly" if board is not None:
                size = board.send_plotly(view)
                log.debug("nbdebug: sent plotly.js, %d bytes", size)
                self._sent = replace(self._sent, plotlies=self._sent.plotlies + 1)
            case "ack":
                number = message.get("number")
                self._stream.acknowledge(view, number if isinstance(number, int) else -1)
            case "command":
                self._look_again(view)
            case "overlay":
                run, drawn = message.get("run"), message.get("drawn")
                if isinstance(run, str) and isinstance(drawn, bool):
                    self._legend.choose(run, drawn)
                self._look_again(view)
            case "tab":
                self._lens.open_tab(view, str(message.get("tab") or ""))
                self._look_again(view)
            case "focus":
                self._refocus(message)
                self._look_again(view)
            case other:
                log.warning("nbdebug: ignored a message from the dashboard: unknown type %r", other)

    def _refocus(self, message: Mapping[str, Any]) -> None:
        try:
            self._lens.choose(message)
        except ValueError as error:
            log.warning("nbdebug: ignored a message from the dashboard: %s", error)

    def _look_again(self, view: str) -> None:
        """Something was done in this view: let it see soon what came of it."""
        self._stream.acknowledge(view, -1)
        self._next_pull = 0.0

    def _send(self, views: list[str], has: Mapping[tuple[str, ...], object]) -> bool:
        frame = difference(has, self._picture)
        if frame is None or self._board is None:
            return False
        number = self._stream.sent(views, self._picture, time.monotonic())
        size = self._board.send_frame(views, number, whole=not has, head=frame[0], values=frame[1])
        self._sent = replace(self._sent, frames=self._sent.frames + 1, bytes=self._sent.bytes + size)
        return True


def _alike(
    due: Mapping[str, Mapping[tuple[str, ...], object]],
) -> list[tuple[list[str], Mapping[tuple[str, ...], object]]]:
    """The views that have the very same picture, together: they get one message."""
    groups: dict[int, tuple[list[str], Mapping[tuple[str, ...], object]]] = {}
    for view, has in due.items():
        key = id(has) if has else 0
        groups.setdefault(key, ([], has))[0].append(view)
    return list(groups.values())


class _Epitaph:
    """Answers for a closed dashboard: the last picture, whole, and that it is closed. Runs on a kernel thread."""

    def __init__(self, board: Board, picture: Picture) -> None:
        self._board = board
        self._picture = picture

    def __call__(self, message: Mapping[str, Any]) -> None:
        if message.get("type") == "plotly":
            self._board.send_plotly(message["view"])
        elif message.get("type") == "ready":
            frame = difference({}, self._picture)
            if frame is not None:
                self._board.send_frame([message["view"]], 0, whole=True, head=frame[0], values=frame[1])
            self._board.send_closed()
