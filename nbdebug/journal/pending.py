"""Pending: what waits to be written, between the training thread and the writer. Bounded; neither waits for long.

The training thread adds under a lock that is held for microseconds. When the writer can't keep up, values are no
longer kept one by one: they go into curves that keep the extremes of every stretch.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from nbdebug.journal.series import TRAIN_LOSS, Curve
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Finding, Gone
from nbdebug.records.frames import Floats, Frame, Rows
from nbdebug.records.layers import Unseen
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.samples import SamplePass, SampleSet
from nbdebug.records.search import SearchResult
from nbdebug.records.signals import Series
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.view import Points

MAX_FRAMES = 4_096
MAX_ROWS = 65_536
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
class UnseenTold:
    """All that can't be looked at in a run."""

    run: str
    unseen: tuple[Unseen, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One line of numbers of a run; ``smooth`` is not measured, but the smoothed training loss."""

    run: str
    series: Series
    smooth: bool = False


Numbers = tuple[Line, Points]


@dataclass(frozen=True, slots=True)
class Taken:
    """A frame's numbers; ``smooth`` is the smoothed training loss after it, ``None`` where it has none."""

    run: str
    step: int
    epoch: int
    scalars: tuple[tuple[Series, float], ...]
    smooth: float | None = None

    @staticmethod
    def of(frame: Frame, smooth: float | None = None) -> Taken:
        """Without what else the frame holds, which may be large."""
        return Taken(frame.run, frame.step, frame.epoch, frame.scalars, smooth)

    def numbers(self) -> list[Numbers]:
        """What is new on each line."""
        step = np.array([self.step], dtype=np.int64)
        lines = [(Line(self.run, series), value) for series, value in self.scalars]
        if self.smooth is not None:
            lines.append((Line(self.run, TRAIN_LOSS, smooth=True), self.smooth))
        return [(line, Points(step, np.array([value], dtype=np.float64))) for line, value in lines]


@dataclass(frozen=True, slots=True)
class TakenRows:
    """A block of rows, their values by series in ``columns`` ``(series, n)``, and the smoothed training loss."""

    rows: Rows
    columns: Floats
    smooth: Points | None = None

    @property
    def run(self) -> str:
        """The run they belong to."""
        return self.rows.run

    @property
    def step(self) -> int:
        """The last step."""
        return int(self.rows.steps[-1])

    @property
    def epoch(self) -> int:
        """The epochs finished then."""
        return self.rows.epoch

    def numbers(self) -> list[Numbers]:
        """What is new on each line."""
        rows = self.rows
        found = [
            (Line(rows.run, series), Points(rows.steps, column))
            for series, column in zip(rows.series, self.columns, strict=True)
        ]
        if self.smooth is not None and len(self.smooth.steps):
            found.append((Line(rows.run, TRAIN_LOSS, smooth=True), self.smooth))
        return found


Entry = (
    RunBegun
    | RunEdited
    | RunDeleted
    | SnapshotsTaken
    | UnseenTold
    | Outcome
    | Finding
    | Gone
    | Proof
    | SampleSet
    | SamplePass
    | Mark
    | Intervention
    | Manifest
    | Comparison
    | SearchResult
    | LrCurve
)


@dataclass
class Batch:
    """What is written at once: ``log`` in its order, then ``backlog``; ``sampled`` runs have new layer records.

    ``places`` are the last step and epoch of runs in the backlog. ``frames`` counts frames and blocks in the log.
    """

    log: deque[Taken | TakenRows | Entry] = field(default_factory=deque)
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
        self._rows = 0
        self.tickets = 0

    def __bool__(self) -> bool:
        return bool(self._batch)

    def add(self, taken: Taken | TakenRows, *, sampled: bool = False) -> None:
        """Add numbers; ``sampled`` says that their run has new layer records. Never waits for the disk."""
        rows = len(taken.rows.steps) if isinstance(taken, TakenRows) else 1
        with self._lock:
            batch = self._batch
            if self._frames == 0:
                self.changed.notify_all()
            self.tickets += 1
            if self._frames < MAX_FRAMES and self._rows + rows <= MAX_ROWS:
                self._frames += 1
                self._rows += rows
                batch.log.append(taken)
            else:
                self._add_to_backlog(taken)
            if sampled:
                batch.sampled.add(taken.run)

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
            self._frames = self._rows = 0
            self.urgent = False
            return batch

    def _add_to_backlog(self, taken: Taken | TakenRows) -> None:
        backlog = self._batch.backlog
        for line, points in taken.numbers():
            curve = backlog.get(line)
            if curve is None:
                curve = backlog[line] = Curve(BACKLOG_CAPACITY)
            curve.extend(points.steps, points.values)
        step, epoch = self._batch.places.get(taken.run, (0, 0))
        self._batch.places[taken.run] = (max(step, taken.step), max(epoch, taken.epoch))

    def _forget(self, run: str) -> None:
        self._batch.sampled.discard(run)
        self._batch.places.pop(run, None)
        for line in [line for line in self._batch.backlog if line.run == run]:
            del self._batch.backlog[line]
