"""Tables: writes batches into the file as one session. On the writer's thread only.

Numbers go in as one row per line and batch; when there are enough small rows of a line they are joined to a larger
one, so that their count stays bounded. Of layer records the writer asks the journal itself, for what is new.
"""

from __future__ import annotations

import itertools
import os
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nbdebug.journal import codec
from nbdebug.journal.pending import (
    Batch,
    Entry,
    Line,
    RunBegun,
    RunDeleted,
    RunEdited,
    SnapshotsTaken,
    Taken,
    TakenRows,
    UnseenTold,
)
from nbdebug.journal.points import Stretch, joined, packed, unpacked
from nbdebug.journal.sample_passes import most_passes
from nbdebug.journal.sample_table import SampleTable
from nbdebug.journal.samples import Sampler
from nbdebug.journal.transaction import Transaction
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Finding, Gone
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.samples import SamplePass, SampleSet
from nbdebug.records.search import SearchResult
from nbdebug.records.view import Points

FANOUT = 32
MAX_POINTS = 65_536
TABLE_OF: dict[type[Any], str] = {
    Outcome: "outcomes",
    Finding: "findings",
    Gone: "findings",
    Mark: "marks",
    Intervention: "interventions",
    Manifest: "manifests",
    Comparison: "comparisons",
    LrCurve: "lr_curves",
    Proof: "proofs",
    SampleSet: "sample_sets",
}
OF_A_RUN = ("marks", "interventions", "manifests", "samples", "sample_passes")


@dataclass
class LineState:
    """A line's number in the file, its points so far, and its small rows by level."""

    number: int
    end: int = 0
    levels: list[list[int]] = field(default_factory=lambda: [[]])


class Tables:
    """One session in the file."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self._lines: dict[Line, LineState] = {}
        self.name = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        now, facts = time.time(), (os.getpid(), socket.gethostname(), os.getcwd())
        with Transaction(connection):
            cursor = connection.execute(
                "INSERT INTO sessions (name, started_s, last_s, process, host, folder) VALUES (?, ?, ?, ?, ?, ?)",
                (self.name, now, now, *facts),
            )
        self.session = cursor.lastrowid or 0
        self._samples = SampleTable(connection, self.session)

    @property
    def sample_bytes(self) -> int:
        """How large the layer records were that the last batch wrote."""
        return self._samples.bytes_written

    def write(self, batch: Batch, sampler: Sampler) -> None:
        """Write a batch in one transaction: all of it, or nothing.

        Raises:
            FileBusy: another process holds the file; the same batch may be given again.
        """
        with Transaction(self.connection):
            self._write_log(batch.log)
            self._write_numbers({line: _stretch_of(curve.points()) for line, curve in batch.backlog.items()})
            self._write_places(batch.places)
            self._samples.write(batch.sampled, sampler)
            self._execute("UPDATE sessions SET last_s = ? WHERE id = ?", time.time(), self.session)

    def end(self) -> None:
        """The session is over: note it, and join what small rows there are."""
        with Transaction(self.connection):
            for state in self._lines.values():
                numbers = [number for level in state.levels for number in level]
                state.levels = [[]]
                self._join(state, 0, numbers)
            self._execute("UPDATE sessions SET ended_s = ? WHERE id = ?", time.time(), self.session)
        self._lines.clear()

    # -- entries ------------------------------------------------------------------------------------------------

    def _write_log(self, log: Iterable[Taken | TakenRows | Entry]) -> None:
        gathered: dict[Line, list[Points]] = {}
        places: dict[str, tuple[int, int]] = {}

        def write_gathered() -> None:
            self._write_numbers({line: _stretch_of(*parts) for line, parts in gathered.items()})
            self._write_places(places)
            gathered.clear()
            places.clear()

        for entry in log:
            if isinstance(entry, Taken | TakenRows):
                for line, points in entry.numbers():
                    gathered.setdefault(line, []).append(points)
                step, epoch = places.get(entry.run, (0, 0))
                places[entry.run] = (max(step, entry.step), max(epoch, entry.epoch))
                continue
            if isinstance(entry, RunBegun | RunDeleted):
                write_gathered()
            self._write_entry(entry)
        write_gathered()

    def _write_entry(self, entry: Entry) -> None:
        match entry:
            case RunBegun(run):
                self._insert_run(run)
            case RunEdited(run):
                sql = "UPDATE runs SET body = ? WHERE session = ? AND name = ?"
                self._execute(sql, codec.encode(run)[0], self.session, run.name)
            case RunDeleted(name):
                self._delete_run(name)
            case SnapshotsTaken(snapshots):
                body = codec.encode(snapshots)[0]
                self._execute("INSERT OR REPLACE INTO snapshots (session, body) VALUES (?, ?)", self.session, body)
            case UnseenTold(run, unseen):
                self._samples.write_unseen(run, unseen)
            case SearchResult():
                self._insert_search(entry)
            case SamplePass():
                self._insert_pass(entry)
            case _:
                self._insert_record(entry)

    def _insert_record(
        self,
        record: Outcome | Finding | Gone | Mark | Intervention | Manifest | Comparison | LrCurve | Proof | SampleSet,
    ) -> None:
        table = TABLE_OF[type(record)]
        if isinstance(record, Manifest):
            self._execute("DELETE FROM manifests WHERE session = ? AND run = ?", self.session, record.run)
        sql = f"INSERT INTO {table} (session, run, body, arrays) VALUES (?, ?, ?, ?)"
        self._execute(sql, self.session, record.run, *codec.encode(record))

    def _insert_search(self, record: SearchResult) -> None:
        """In the place of what was known of the same search before."""
        mine = (self.session, record.number)
        self._execute("DELETE FROM searches WHERE session = ? AND number = ?", *mine)
        sql = "INSERT INTO searches (session, number, run, body, arrays) VALUES (?, ?, ?, ?, ?)"
        self._execute(sql, *mine, record.run, *codec.encode(record))

    def _insert_pass(self, record: SamplePass) -> None:
        """Of very many of a run, every other one goes."""
        mine = (self.session, record.run)
        sql = "INSERT INTO sample_passes (session, run, body, arrays) VALUES (?, ?, ?, ?)"
        self._execute(sql, *mine, *codec.encode(record))
        of_run = "SELECT id FROM sample_passes WHERE session = ? AND run = ? ORDER BY id DESC"
        numbers = [row[0] for row in self._execute(of_run, *mine).fetchall()]
        if len(numbers) > 2 * most_passes(record):
            self.connection.executemany("DELETE FROM sample_passes WHERE id = ?", [(each,) for each in numbers[1::2]])

    def _insert_run(self, run: Run) -> None:
        sql = (
            "INSERT OR REPLACE INTO runs (session, name, first_step, last_step, last_s, body) VALUES (?, ?, ?, ?, ?, ?)"
        )
        self._execute(sql, self.session, run.name, run.step, run.step, time.time(), codec.encode(run)[0])

    def _delete_run(self, name: str) -> None:
        mine = (self.session, name)
        lines = "SELECT id FROM lines WHERE session = ? AND run = ?"
        self._execute(f"DELETE FROM points WHERE line IN ({lines})", *mine)
        for table in ("lines", *OF_A_RUN):
            self._execute(f"DELETE FROM {table} WHERE session = ? AND run = ?", *mine)
        self._execute("DELETE FROM runs WHERE session = ? AND name = ?", *mine)
        self._execute("UPDATE sessions SET rewritten = rewritten + 1 WHERE id = ?", self.session)
        self._lines = {line: state for line, state in self._lines.items() if line.run != name}
        self._samples.forget(name)

    def _write_places(self, places: dict[str, tuple[int, int]]) -> None:
        sql = (
            "UPDATE runs SET last_step = max(last_step, ?), last_epoch = max(last_epoch, ?), last_s = ? "
            "WHERE session = ? AND name = ?"
        )
        for run, place in places.items():
            self._execute(sql, *place, time.time(), self.session, run)

    # -- numbers ------------------------------------------------------------------------------------------------

    def _write_numbers(self, stretches: dict[Line, Stretch]) -> None:
        for line, stretch in stretches.items():
            state = self._lines.get(line)
            if state is None:
                state = self._lines[line] = self._begin_line(line)
            span = len(stretch.steps)
            self._keep(state, 0, self._insert_points(state, state.end, span, stretch), span)
            state.end += span

    def _begin_line(self, line: Line) -> LineState:
        series = line.series
        cursor = self._execute(
            "INSERT INTO lines (session, run, signal, name, split, smooth) VALUES (?, ?, ?, ?, ?, ?)",
            *(self.session, line.run, str(series.signal), series.name, str(series.split or ""), int(line.smooth)),
        )
        return LineState(cursor.lastrowid or 0)

    def _insert_points(self, state: LineState, start: int, span: int, stretch: Stretch) -> int:
        cursor = self._execute(
            'INSERT INTO points (line, start, span, width, first_step, steps, "values") VALUES (?, ?, ?, ?, ?, ?, ?)',
            *(state.number, start, span, stretch.width, *packed(stretch)),
        )
        return cursor.lastrowid or 0

    def _keep(self, state: LineState, level: int, number: int, span: int) -> None:
        """Remember a row as one of its level; a full level is joined to one row of the next."""
        if span >= MAX_POINTS:
            return
        if level == len(state.levels):
            state.levels.append([])
        state.levels[level].append(number)
        if len(state.levels[level]) >= FANOUT:
            numbers, state.levels[level] = state.levels[level], []
            self._join(state, level + 1, numbers)

    def _join(self, state: LineState, level: int, numbers: list[int]) -> None:
        """One row of many; those that were thinned, and so are of another width, make rows of their own."""
        marks = ",".join("?" * len(numbers))
        rows = self._execute(
            f'SELECT id, start, span, first_step, steps, "values", width FROM points WHERE id IN ({marks}) '
            "ORDER BY start",
            *numbers,
        ).fetchall()
        for _, same_width in itertools.groupby(rows, key=lambda row: row[-1]):
            group = list(same_width)
            span = sum(row[2] for row in group)
            number = group[0][0]
            if len(group) > 1:
                self.connection.executemany("DELETE FROM points WHERE id = ?", [(row[0],) for row in group])
                stretch = joined([unpacked(*row[3:]) for row in group])
                number = self._insert_points(state, group[0][1], span, stretch)
            self._keep(state, level, number, span)

    def _execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        return self.connection.execute(sql, values)


def _stretch_of(*parts: Points) -> Stretch:
    return Stretch(np.concatenate([part.steps for part in parts]), np.concatenate([part.values for part in parts]))
