"""Limit: keeps the file within its size. On the writer's thread, between batches.

The oldest of the finest curves are thinned first, to the extremes of twice as wide stretches; layer records are halved
where they take more room than the curves. When nothing is left to thin, the oldest sessions that are over go.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Collection

from nbdebug.journal.codec import UnreadableRecord
from nbdebug.journal.points import packed, thinned, unpacked
from nbdebug.journal.sample_table import COLUMNS
from nbdebug.journal.samples import TABLE, SampleRow, merged
from nbdebug.journal.schema import RECORD_TABLES
from nbdebug.journal.transaction import Transaction

CHECK_EVERY = 8
BEGIN_AT, END_AT = 0.9, 0.75
BUDGET_S, LAST_BUDGET_S = 0.25, 3.0
ROWS_AT_ONCE = 8
FEW_POINTS = 16
FEW_SLOTS = 4
SILENT_S = 86_400.0


class Limit:
    """What a session does to keep the file, all sessions together, below ``size_limit_bytes``."""

    def __init__(self, connection: sqlite3.Connection, size_limit_bytes: int, session: int) -> None:
        self._connection = connection
        self._limit = size_limit_bytes
        self._session = session
        self._calls = 0
        self._thinning = False
        self._hopeless_at = 0
        self._page_bytes = int(self._pragma("page_size"))

    def enforce(self, active: Collection[str] = ()) -> None:
        """Thin for about a quarter of a second at most, if need be; layer records of ``active`` runs here are left."""
        self._calls += 1
        if self._thinning or self._calls % CHECK_EVERY == 0:
            self._enforce(active, BUDGET_S)

    def leave(self) -> None:
        """The same before the file is left as it is, with as much time as a person waits for the end."""
        self._enforce((), LAST_BUDGET_S)
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _enforce(self, active: Collection[str], budget_s: float) -> None:
        if not self._thinning:
            self._thinning = self._used() >= max(self._limit * BEGIN_AT, self._hopeless_at)
        end = time.monotonic() + budget_s
        while self._thinning and time.monotonic() < end:
            if self._used() < self._limit * END_AT:
                self._thinning = False
            elif not (self._thin_larger(active) or self._drop_a_session()):
                self._thinning = False
                self._hopeless_at = self._used() + self._limit // 100
        if self._pages() * self._page_bytes > self._limit:
            self._connection.executescript("PRAGMA incremental_vacuum")  # execute() frees one page and stops

    def _thin_larger(self, active: Collection[str]) -> bool:
        points = self._number('SELECT total(length("values") + coalesce(length(steps), 0)) FROM points')
        samples = self._number("SELECT total(length(body) + coalesce(length(arrays), 0)) FROM samples")
        if samples > points:
            return self._thin_samples(active) or self._thin_points()
        return self._thin_points() or self._thin_samples(active)

    # -- curves -------------------------------------------------------------------------------------------------

    def _thin_points(self) -> bool:
        with Transaction(self._connection):
            rows = self._connection.execute(
                'SELECT id, line, start, span, first_step, steps, "values", width FROM points '
                f'WHERE length("values") > {8 * FEW_POINTS} ORDER BY width, id LIMIT {ROWS_AT_ONCE}'
            ).fetchall()
            for number, line, start, span, *stretch in rows:
                fewer = thinned(unpacked(*stretch))
                # not an UPDATE: that would leave each row the page that it had
                self._connection.execute("DELETE FROM points WHERE id = ?", (number,))
                self._connection.execute(
                    'INSERT INTO points (id, line, start, span, width, first_step, steps, "values") '
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    (number, line, start, span, fewer.width, *packed(fewer)),
                )
                self._rewrote("(SELECT session FROM lines WHERE id = ?)", line)
        return bool(rows)

    # -- layer records ------------------------------------------------------------------------------------------

    def _thin_samples(self, active: Collection[str]) -> bool:
        with Transaction(self._connection):
            groups = self._connection.execute(
                "SELECT session, run, kind FROM samples WHERE slot >= 0 GROUP BY session, run, kind "
                f"HAVING count(*) > {FEW_SLOTS} ORDER BY sum(length(body) + coalesce(length(arrays), 0)) DESC"
            ).fetchall()
            mine = self._session
            group = next((g for g in groups if g[0] != mine or g[1] not in active), None)
            if group is None:
                return False
            self._halve(*group)
            self._rewrote("?", group[0])
        return True

    def _halve(self, session: int, run: str, kind: str) -> None:
        """Half as many rows at most: those that fall into the same wide bucket of steps become one."""
        where = "WHERE session = ? AND run = ? AND kind = ? AND slot >= 0"
        slots = self._connection.execute(f"SELECT slot, id FROM samples {where} ORDER BY slot", (session, run, kind))
        for numbers in _neighbours(slots.fetchall()):
            marks = ",".join("?" * len(numbers))
            rows = self._connection.execute(
                f"SELECT kind, slot, step, body, arrays FROM samples WHERE id IN ({marks}) ORDER BY slot", numbers
            ).fetchall()
            self._connection.execute(f"DELETE FROM samples WHERE id IN ({marks})", numbers)
            kept = _combined([SampleRow(*row) for row in rows])
            self._connection.execute(
                f"INSERT INTO samples {COLUMNS}",
                (session, run, kept.kind, kept.slot, kept.step, kept.body, kept.arrays),
            )

    # -- sessions -----------------------------------------------------------------------------------------------

    def _drop_a_session(self) -> bool:
        with Transaction(self._connection):
            found = self._connection.execute(
                "SELECT id FROM sessions WHERE id != ? AND (ended_s IS NOT NULL OR last_s < ?) ORDER BY id LIMIT 1",
                (self._session, time.time() - SILENT_S),
            ).fetchone()
            if found is None:
                return False
            self._connection.execute("DELETE FROM points WHERE line IN (SELECT id FROM lines WHERE session = ?)", found)
            for table in ("lines", "runs", "samples", "snapshots", *RECORD_TABLES):
                self._connection.execute(f"DELETE FROM {table} WHERE session = ?", found)
            self._connection.execute("DELETE FROM sessions WHERE id = ?", found)
        return True

    def _rewrote(self, session: str, value: int) -> None:
        self._connection.execute(f"UPDATE sessions SET rewritten = rewritten + 1 WHERE id = {session}", (value,))

    def _used(self) -> int:
        return (self._pages() - int(self._pragma("freelist_count"))) * self._page_bytes

    def _pages(self) -> int:
        return int(self._pragma("page_count"))

    def _pragma(self, name: str) -> float:
        return self._number(f"PRAGMA {name}")

    def _number(self, sql: str) -> float:
        return float(self._connection.execute(sql).fetchone()[0])


def _neighbours(slots: list[tuple[int, int]]) -> list[list[int]]:
    """Numbers of rows that are to become one, given their first steps, growing, and their numbers."""
    width, groups = 1, [[number] for _, number in slots]
    while len(groups) > len(slots) // 2:
        width *= 2
        by_bucket: dict[int, list[int]] = {}
        for slot, number in slots:
            by_bucket.setdefault(slot // width, []).append(number)
        groups = list(by_bucket.values())
    return [group for group in groups if len(group) > 1]


def _combined(rows: list[SampleRow]) -> SampleRow:
    """One row of neighbours: their extremes, or of what has none, or can't be read, the newest."""
    if rows[-1].kind != TABLE:
        return rows[-1]
    try:
        return merged(rows)
    except UnreadableRecord:
        return rows[-1]
