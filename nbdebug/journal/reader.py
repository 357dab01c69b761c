"""Reader: brings one session of the file into a journal in memory, and what is new since. Reads only; any one thread.

Each look is one short read transaction, so it is consistent, and writers go on meanwhile. When the writer thinned or
deleted something, the session is read anew from the start.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from nbdebug.journal import codec
from nbdebug.journal.journal import Journal
from nbdebug.journal.layers import News
from nbdebug.journal.points import Stretch, joined, unpacked
from nbdebug.journal.samples import SampleRow, read
from nbdebug.journal.schema import damaged, open_to_read, unreadable
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.errors import ConfigurationError, NbdebugError
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Finding, Gone
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Run, RunKind
from nbdebug.records.samples import SamplePass, SampleSet
from nbdebug.records.search import SearchResult
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points

T = TypeVar("T")
LATEST_S = 253_402_300_800  # the end of the year 9999: later ones have no date
COLUMN_TYPES: tuple[Any, ...] = (str, float, int, int, int, str, str, (float, type(None)), float)  # of a StoredSession


@dataclass(frozen=True)
class StoredSession:
    """A session in the file: one debugger, from its making to its end.

    ``runs`` are those made to train, ``steps`` the sum over them; ``process`` and ``host`` are where it ran, ``folder``
    its working folder. ``ended_s`` is ``None`` while it goes on, and for one that was killed. Times are Unix time.
    """

    id: str
    started_s: float
    runs: int
    steps: int
    process: int
    host: str
    folder: str
    ended_s: float | None
    last_s: float

    def __str__(self) -> str:
        started = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.started_s))
        runs = "1 run" if self.runs == 1 else f"{self.runs} runs"
        return f"{self.id}: started {started} in {self.folder}, {runs}, {self.steps:,} steps"


@dataclass(frozen=True, slots=True)
class Place:
    """How far a run came: its last step, the epochs finished then, and when that was written (Unix time)."""

    step: int
    epoch: int
    written_s: float


class Reader:
    """One session of a file.

    ``places`` says by run how far it came, the one written last as the last. ``skipped`` counts records that this
    version can't read.

    Raises:
        ConfigurationError: there is no such file or session.
        FileFormatError: the file is no journal, is damaged, or of a newer version.
    """

    def __init__(self, path: Path, session: str | None = None) -> None:
        self.path = path
        self.skipped = 0
        self.places: dict[str, Place] = {}
        self._connection = open_to_read(path)
        try:
            self.session = self._choose(session)
            self._number = self._guarded(lambda: self._one("SELECT id FROM sessions WHERE name = ?", self.session))
        except BaseException:
            self._connection.close()
            raise
        self._reset()

    def sessions(self) -> tuple[StoredSession, ...]:
        """All sessions in the file, oldest first."""
        return self._guarded(self._sessions)

    def update(self, journal: Journal) -> Journal:
        """Bring what is new into ``journal``; returns it, or another that was read from the start."""
        return self._guarded(lambda: self._update(journal))

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # -- inside -------------------------------------------------------------------------------------------------

    def _reset(self) -> None:
        self._seen: dict[str, int] = {}
        self._bodies: dict[str, str | bytes] = {}
        self._ends: dict[int, int] = {}
        self._snapshots_body: str | bytes = ""
        self._rewritten: int | None = None
        self.skipped = 0

    def _update(self, journal: Journal) -> Journal:
        with closing(self._connection.cursor()) as cursor:
            cursor.execute("BEGIN")
            try:
                rewritten = self._one("SELECT rewritten FROM sessions WHERE id = ?", self._number)
                if rewritten is None:
                    return journal  # the session had to go, to keep the file in its size; here it stays
                if rewritten != self._rewritten:
                    self._reset()
                    self._rewritten, journal = rewritten, Journal()
                self._read_runs(journal)
                self._read_records(journal)
                self._read_points(journal)
                self._read_samples(journal)
                self._read_places(journal)
            finally:
                cursor.execute("COMMIT")
        return journal

    def _read_runs(self, journal: Journal) -> None:
        rows = self._all("SELECT name, body FROM runs WHERE session = ? ORDER BY id", self._number)
        changed = [(name, body) for name, body in rows if self._bodies.get(name) != body]
        for name, body in changed:
            run = self._decoded(Run, body)
            if run is None:
                continue
            if run.name != name or (run.parent is not None and run.parent not in self._bodies):
                self.skipped += 1  # damaged, or its parent can't be read: without that it has no beginning
                continue
            (journal.edit_run if name in self._bodies else journal.begin_run)(run)
            self._bodies[name] = body

    def _read_places(self, journal: Journal) -> None:
        sql = "SELECT name, last_step, last_epoch, last_s FROM runs WHERE session = ? ORDER BY last_s, id"
        places = {}
        for name, step, epoch, last_s in self._all(sql, self._number):
            if name in self._bodies:
                if not isinstance(step, int) or not isinstance(epoch, int):
                    raise damaged(self.path, ValueError(f"run {name!r} came to step {step!r}, epoch {epoch!r}"))
                journal.reach(name, step)
                places[name] = Place(step, epoch, last_s)
        self.places = places

    def _read_records(self, journal: Journal) -> None:
        runs = self._bodies
        self._each("outcomes", Outcome, journal.record_outcome)
        self._each(
            "findings",
            (Finding, Gone),
            lambda it: journal.record_gone(it) if isinstance(it, Gone) else journal.record_finding(it),
        )
        self._each("marks", Mark, journal.mark)
        self._each(
            "interventions", Intervention, lambda it: journal.record_intervention(it) if it.run in runs else None
        )
        self._each("manifests", Manifest, journal.record_manifest)
        self._each("comparisons", Comparison, journal.record_comparison)
        self._each("searches", SearchResult, journal.record_search)
        self._each("lr_curves", LrCurve, journal.record_lr_curve)
        self._each("proofs", Proof, journal.record_proof)
        self._each("sample_sets", SampleSet, journal.record_sample_set)
        self._each("sample_passes", SamplePass, journal.record_sample_pass)
        for (body,) in self._all("SELECT body FROM snapshots WHERE session = ?", self._number):
            if body != self._snapshots_body:
                self._snapshots_body = body
                journal.record_snapshots(self._decoded(tuple, body) or ())

    def _each(self, table: str, kind: type[Any] | tuple[type[Any], ...], take: Callable[[Any], None]) -> None:
        if not self._one("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", table):
            return  # a file of an older version that nobody has written to since
        sql = f"SELECT id, body, arrays FROM {table} WHERE session = ? AND id > ? ORDER BY id"
        for number, body, arrays in self._all(sql, self._number, self._seen.get(table, 0)):
            self._seen[table] = number
            record = self._decoded(kind, body, arrays)
            if record is not None:
                take(record)

    def _read_points(self, journal: Journal) -> None:
        sql = "SELECT id, run, signal, name, split, smooth FROM lines WHERE session = ? ORDER BY id"
        for number, run, signal, name, split, smooth in self._all(sql, self._number):
            fresh = self._new_points(number)
            series = _series(signal, name, split)
            if fresh is not None and series is not None and run in self._bodies:
                journal.extend(run, series, Points(fresh.steps, fresh.values), smooth=bool(smooth))

    def _new_points(self, line: int) -> Stretch | None:
        """What came since the last look. A row that small ones were joined to may hold more; then its tail is new."""
        end = self._ends.get(line, 0)
        rows = self._all(
            'SELECT start + span, first_step, steps, "values", width FROM points WHERE line = ? AND start >= '
            "coalesce((SELECT max(start) FROM points WHERE line = ? AND start <= ?), 0) ORDER BY start",
            *(line, line, end),
        )
        fresh = []
        for row_end, *stretch in rows:
            if row_end > end:
                whole = self._unpacked(*stretch)
                fresh.append(Stretch(whole.steps[end - row_end :], whole.values[end - row_end :], whole.width))
                end = row_end
        self._ends[line] = end
        return joined(fresh) if fresh else None

    def _unpacked(self, first: int, steps: bytes | None, values: bytes, width: int) -> Stretch:
        try:
            return unpacked(first, steps, values, width)
        except ValueError as error:
            raise damaged(self.path, error) from error

    def _read_samples(self, journal: Journal) -> None:
        sql = (
            "SELECT id, run, kind, slot, step, body, arrays FROM samples WHERE session = ? AND id > ? "
            "ORDER BY slot, step, id"
        )
        seen = self._seen.get("samples", 0)
        for number, run, *columns in self._all(sql, self._number, seen):
            self._seen["samples"] = max(self._seen.get("samples", 0), number)
            row = SampleRow(*columns)
            if run in self._bodies and isinstance(row.slot, int) and isinstance(row.step, int):
                self._take_in(journal, run, row)

    def _take_in(self, journal: Journal, run: str, row: SampleRow) -> None:
        try:
            found = read(row)
        except codec.UnreadableRecord:
            self.skipped += 1
            return
        if isinstance(found, News):
            journal.take_in(run, found)
        elif found is not None:
            journal.record_unseen(run, found)

    def _choose(self, session: str | None) -> str:
        found = self.sessions()
        if session is not None and any(session == one.id for one in found):
            return session
        if session is None and found:
            return next((one.id for one in reversed(found) if one.steps or one.ended_s is None), found[-1].id)
        there = "\n".join(f"- {one}" for one in found[-20:])
        if session is None:
            raise ConfigurationError(f"the journal in {self.path} holds no session yet: nothing was recorded")
        raise ConfigurationError(f"no session {session!r} in {self.path}; there are\n{there or '- none'}")

    def _sessions(self) -> tuple[StoredSession, ...]:
        runs: dict[int, list[int]] = {}
        for session, steps, body in self._all("SELECT session, last_step - first_step, body FROM runs"):
            if _is_training(body):
                runs.setdefault(session, []).append(steps)
        rows = self._all("SELECT id, name, started_s, process, host, folder, ended_s, last_s FROM sessions ORDER BY id")
        return tuple(self._session(runs.get(number, []), *columns) for number, *columns in rows)

    def _session(self, steps: list[int], name: str, started_s: float, *columns: Any) -> StoredSession:
        values = (name, started_s, len(steps), sum(steps), *columns)
        for value, kind in zip(values, COLUMN_TYPES, strict=True):
            if not isinstance(value, kind):
                raise TypeError(f"a session has {value!r} in place of a number or text")
        if not 0 <= started_s < LATEST_S:
            raise ValueError(f"a session began at {started_s!r}, which is no time")
        return StoredSession(*values)

    def _decoded(self, kind: type[Any] | tuple[type[Any], ...], body: str | bytes, arrays: bytes | None = None) -> Any:
        try:
            record = codec.decode(body, arrays)
        except codec.UnreadableRecord:
            record = None
        if isinstance(record, kind):
            return record
        self.skipped += 1
        return None

    def _guarded(self, look: Callable[[], T]) -> T:
        try:
            return look()
        except NbdebugError:
            raise
        except (sqlite3.Error, *codec.NONSENSE) as error:
            raise unreadable(self.path, error) from error

    def _all(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, *values: Any) -> Any:
        row = self._connection.execute(sql, values).fetchone()
        return row[0] if row is not None else None


def _is_training(body: str | bytes) -> bool:
    """Whether a run was made to train, not to measure noise; one that can't be read is not shown, nor counted."""
    try:
        run = codec.decode(body)
    except codec.UnreadableRecord:
        return False
    return isinstance(run, Run) and run.kind is RunKind.TRAINING


def _series(signal: str, name: str, split: str) -> Series | None:
    """``None`` for what a later version measures and this one does not know."""
    try:
        return Series(Signal(signal), name, Split(split) if split else None)
    except ValueError:
        return None
