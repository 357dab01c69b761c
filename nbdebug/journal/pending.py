"""Pending: what waits to be written, between the training thread and the writer. Bounded; neither waits for long.

The training thread adds under a lock that is held for microseconds. When the writer can't keep up, values are no
longer kept one by one: they go into curves that keep the extremes of every stretch.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

from nbdebug.journal.series import TRAIN_LOSS, Curve
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Frame
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.signals import Series
from nbdebug.records.snapshots import SnapshotInfo

MAX_FRAMES = 4_096
MAX_ENTRIES = 20_000
BACKLOG_CAPACITY = 1_024


@dataclass(frozen=True, slots=True)
class RunBegun:
    """A run exists."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunEdited:
    """A run has another title, note, pin or caveat."""

    run: Run


@dataclass(frozen=True, slots=True)
class RunDeleted:
    """A run is to be forgotten."""

    name: str


@dataclass(frozen=True, slots=True)
class SnapshotsTaken:
    """All snapshots that there are now."""

    snapshots: tuple[SnapshotInfo, ...]


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame's numbers; ``smooth`` is the smoothed training loss after it, ``None`` where it has none."""

    frame: Frame
    smooth: float | None


Entry = (
    RunBegun | RunEdited | RunDeleted | SnapshotsTaken | Outcome | Finding | Mark | Intervention | Manifest | Comparison
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of numbers of a run; ``smooth`` is not measured, but the smoothed training loss."""

    run: str
    series: Series
    smooth: bool = False


@dataclass
class Batch:
    """What is written at once: ``log`` in its order, then ``backlog``; ``sampled`` runs have new layer records.

    ``places`` are the last step and epoch of runs in the backlog. ``frames`` counts those in the log.
    """

    log: deque[Taken | Entry] = field(default_factory=deque)
    backlog: dict[Line, Curve] = field(default_factory=dict)
    sampled: set[str] = field(default_factory=set)
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    ticket: int = 0
    frames: int = 0

    def __bool__(self) -> bool:
        return bool(self.log or self.backlog or self.sampled)


class Pending:
    """A batch that grows until it is taken. ``changed`` guards everything here; the writer waits on it.

    ``tickets`` counts what was added; ``urgent`` says that somebody waits for it to be written.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self.changed = threading.Condition(self._lock)
        self.urgent = False
        self._batch = Batch()
        self._frames = 0
        self.tickets = 0

    def __bool__(self) -> bool:
        return bool(self._batch)

    def add(self, frame: Frame, smooth: float | None) -> None:
        """Add a frame; ``smooth`` is the smoothed training loss after it. Never waits for the disk."""
        with self._lock:
            batch = self._batch
            if self._frames == 0:
                self.changed.notify_all()
            self.tickets += 1
            if self._frames < MAX_FRAMES:
                self._frames += 1
                batch.log.append(Taken(frame, smooth))
            else:
                self._add_to_backlog(frame, smooth)
            if frame.gradients is not None or frame.activations is not None:
                batch.sampled.add(frame.run)

    def put(self, entry: Entry) -> int:
        """Add an entry, in order with the frames; returns a ticket that the batch written then has reached."""
        with self.changed:
            self.tickets += 1
            if len(self._batch.log) - self._frames < MAX_ENTRIES or isinstance(
                entry, RunBegun | RunEdited | RunDeleted
            ):
                self._batch.log.append(entry)
            if isinstance(entry, RunDeleted):
                self._forget(entry.name)
            self.changed.notify_all()
            return self.tickets

    def take(self) -> Batch:
        """Everything so far; from here on a new batch grows."""
        with self.changed:
            batch, self._batch = self._batch, Batch()
            batch.ticket, batch.frames = self.tickets, self._frames
            self._frames = 0
            self.urgent = False
            return batch

    def _add_to_backlog(self, frame: Frame, smooth: float | None) -> None:
        backlog = self._batch.backlog
        lines = [(Line(frame.run, series), value) for series, value in frame.scalars]
        if smooth is not None:
            lines.append((Line(frame.run, TRAIN_LOSS, smooth=True), smooth))
        for line, value in lines:
            curve = backlog.get(line)
            if curve is None:
                curve = backlog[line] = Curve(BACKLOG_CAPACITY)
            curve.append(frame.step, value)
        self._batch.places[frame.run] = (frame.step, frame.epoch)

    def _forget(self, run: str) -> None:
        self._batch.sampled.discard(run)
        self._batch.places.pop(run, None)
        for line in [line for line in self._batch.backlog if line.run == run]:
            del self._batch.backlog[line]
