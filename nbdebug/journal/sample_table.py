"""Sample table: writes what samples say about layers, and only what is new, into the file. On the writer's thread only.

The journal merges its buckets as a run grows; the file keeps the narrow ones that it has, and gets the wider ones from
then on. When most of its rows are such leftovers, which is at every second doubling of a run, they are written anew.
Else nothing is written twice but the newest bucket.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field

from nbdebug.journal.layers import Known
from nbdebug.journal.samples import UNSEEN, Sampler, SampleRow, row_of_unseen, rows_of
from nbdebug.records.layers import Unseen

COLUMNS = "(session, run, kind, slot, step, body, arrays) VALUES (?, ?, ?, ?, ?, ?, ?)"
MOST_LEFTOVERS = 2.5
FEW_ROWS = 16
MINE = f"session = ? AND run = ? AND kind != '{UNSEEN}'"


@dataclass(slots=True)
class _Written:
    """What the file holds of a run's layers, in how many rows."""

    known: Known = field(default_factory=Known)
    rows: int = 0


class SampleTable:
    """The rows of one session; ``bytes_written`` by the last call of :meth:`write`."""

    def __init__(self, connection: sqlite3.Connection, session: int) -> None:
        self.bytes_written = 0
        self._connection = connection
        self._session = session
        self._written: dict[str, _Written] = {}

    def write(self, runs: Iterable[str], sampler: Sampler) -> None:
        """Write what is new of these runs."""
        self.bytes_written = 0
        for run in runs:
            written = self._written.get(run)
            # the first time; or another process has thinned what was there: all that the journal holds goes in
            anew = written is None or written.rows != self._count(run)
            held = self._write(run, sampler, anew=anew)
            if self._written[run].rows > MOST_LEFTOVERS * held + FEW_ROWS:
                self._write(run, sampler, anew=True)

    def _write(self, run: str, sampler: Sampler, *, anew: bool) -> int:
        """Write what is new of a run, or all of it ``anew``; returns how many rows the journal would make."""
        if anew:
            self._connection.execute(f"DELETE FROM samples WHERE {MINE}", (self._session, run))
            self._written[run] = _Written()
        written = self._written[run]
        news = sampler(run, written.known)
        for row in rows_of(news):
            self._insert(run, row)
        written.rows = self._count(run)
        return news.held

    def write_unseen(self, run: str, unseen: tuple[Unseen, ...]) -> None:
        """Write what can't be looked at; it takes the place of what was said before."""
        self._insert(run, row_of_unseen(unseen))

    def forget(self, run: str) -> None:
        """A run's rows are gone."""
        self._written.pop(run, None)

    def _insert(self, run: str, row: SampleRow) -> None:
        self._connection.execute(
            f"INSERT OR REPLACE INTO samples {COLUMNS}",
            (self._session, run, row.kind, row.slot, row.step, row.body, row.arrays),
        )
        self.bytes_written += len(row.body) + len(row.arrays or b"")

    def _count(self, run: str) -> int:
        [count] = self._connection.execute(
            f"SELECT count(*) FROM samples WHERE {MINE}", (self._session, run)
        ).fetchone()
        return int(count)
