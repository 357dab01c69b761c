"""Store: the journal's file, and the thread that writes it. Training only adds to what is pending, and never waits.

What comes after a quiet moment is written at once, so that a reader sees a run as soon as it has begun; from there on a
batch about four times a second, or once where layer records are large. What a killed process loses is the batch that
was growing. When the disk fails, the store says so once and stops; the journal in memory goes on.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

from nbdebug.journal.layers import Known, News
from nbdebug.journal.limit import Limit
from nbdebug.journal.pending import Batch, Entry, Pending, Taken, TakenRows
from nbdebug.journal.samples import Sampler
from nbdebug.journal.schema import DAMAGE, locate, open_to_write, unwritable
from nbdebug.journal.tables import Tables
from nbdebug.journal.transaction import FileBusy

LOG = logging.getLogger("nbdebug")
FLUSH_S = 0.25
MAX_QUIET_S = 0.9  # what a killed process may lose is a second
SAMPLE_BYTES_PER_S = 100_000  # large layer records are written less often
SYNC_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 10.0
SIZE_LIMIT_BYTES = 256 << 20


class Store:
    """A journal's file as one session writes it; several, in one process or many, may share the file.

    Args:
        path: the file, or the folder that holds it; made where it does not exist.
        size_limit_bytes: how large the file may grow; beyond, the oldest and finest data are thinned, spikes kept.
        on_error: called once, on the writer's thread, with a message, when the file can't be written any more.
        connect: opens the database, as ``sqlite3.connect`` does.

    Raises:
        ConfigurationError: the folder or file can't be made or written.
        FileFormatError: the file is no journal, is damaged, or of a newer version; it is left as it is.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        size_limit_bytes: int = SIZE_LIMIT_BYTES,
        on_error: Callable[[str], None] | None = None,
        connect: Callable[..., sqlite3.Connection] = sqlite3.connect,
    ) -> None:
        self.path = locate(path).absolute()
        self._writer = _Writer(self.path, size_limit_bytes, on_error, connect)
        # the thread holds the writer, not the store: a store that is let go, or the interpreter's end, closes it
        self._end = weakref.finalize(self, self._writer.close)

    @property
    def session(self) -> str:
        """The name of this session in the file."""
        return self._writer.tables.name

    @property
    def failed(self) -> str:
        """Why nothing is written any more, empty while all is well."""
        return self._writer.failed

    def attach(self, sampler: Sampler) -> None:
        """Where layer records are asked for, a bound method; whom it belongs to is not kept alive by it."""
        self._writer.sampler = weakref.WeakMethod(sampler)

    def record(self, taken: Taken | TakenRows, *, sampled: bool = False) -> None:
        """Write numbers soon; ``sampled`` says that there are new layer records to ask for. Returns at once."""
        if self._writer.open:
            self._writer.pending.add(taken, sampled=sampled)

    def put(self, entry: Entry) -> None:
        """Write an entry soon, in order with the frames. Returns at once."""
        if self._writer.open:
            self._writer.pending.put(entry)

    def sync(self, timeout_s: float = SYNC_TIMEOUT_S) -> bool:
        """Wait until all that was given so far is committed; false if that did not come to pass."""
        return self._writer.sync(timeout_s)

    def close(self) -> None:
        """Write what is pending and end the thread. Safe to call twice."""
        self._end()

    def __repr__(self) -> str:
        state = self.failed or ("writing" if self._writer.open else "closed")
        return f"<Store {self.path}, session {self.session}: {state}>"


class _Writer:
    """The thread, and all that it works with."""

    def __init__(
        self,
        path: Path,
        size_limit_bytes: int,
        on_error: Callable[[str], None] | None,
        connect: Callable[..., sqlite3.Connection],
    ) -> None:
        self.pending = Pending()
        self.open = True
        self.failed = ""
        self.sampler: weakref.WeakMethod[Sampler] | None = None
        self._path = path
        self._on_error = on_error
        self._closing = False
        self._written = 0
        self._quiet_at = 0.0
        self._batch: Batch | None = None
        self._process = os.getpid()
        connection = open_to_write(path, connect)
        try:
            self.tables = Tables(connection)
            self._file = path.stat().st_ino
        except BaseException as error:
            connection.close()
            if isinstance(error, DAMAGE):
                raise unwritable(path, error) from error
            raise
        self._connection = connection
        self._limit = Limit(connection, size_limit_bytes, self.tables.session)
        self._thread = threading.Thread(target=self._run, name="nbdebug journal", daemon=True)
        self._thread.start()

    # -- any thread ---------------------------------------------------------------------------------------------

    def sync(self, timeout_s: float) -> bool:
        """Wait for what is pending now."""
        changed = self.pending.changed
        with changed:
            wanted = self.pending.tickets
            self.pending.urgent = self._written < wanted
            changed.notify_all()
            changed.wait_for(lambda: self._written >= wanted or not self.open, timeout_s)
            return self._written >= wanted

    def close(self) -> None:
        """Ask the thread to end, and wait for it. A forked child has no such thread and does nothing."""
        if os.getpid() != self._process:
            return
        with self.pending.changed:
            self._closing = True
            self.pending.changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(CLOSE_TIMEOUT_S)

    # -- the writer's thread ------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._wait():
                self._try_flush()
            while self._batch or self.pending:
                self._flush()
            self.tables.end()
            self._limit.leave()
        except FileBusy as error:
            self._fail(f"another process holds the file ({error})")
        except Exception as error:  # whatever it is, training must not feel it, and somebody must hear of it
            self._fail(str(error) or type(error).__name__)
        finally:
            with self.pending.changed:
                self.open = False
                self.pending.take()
                self.pending.changed.notify_all()
            self._connection.close()
        if self.failed and self._on_error is not None:
            self._on_error(self.failed)

    def _wait(self) -> bool:
        """Sleep until there is something, then until it is worth writing; false when the store is to end."""
        pending, changed = self.pending, self.pending.changed
        with changed:
            changed.wait_for(lambda: bool(pending) or self._batch is not None or self._closing)
            changed.wait_for(lambda: pending.urgent or self._closing, max(0.0, self._quiet_at - time.monotonic()))
            return not self._closing

    def _try_flush(self) -> None:
        try:
            self._flush()
        except FileBusy:
            self._quiet_at = time.monotonic() + FLUSH_S
            LOG.info("the journal in %s is held by another process; trying again", self._path)

    def _flush(self) -> None:
        if self._path.stat().st_ino != self._file:
            raise FileNotFoundError("another file has taken its place")
        batch = self._batch = self._batch or self.pending.take()
        self.tables.write(batch, self._samples)
        self._batch = None
        if batch.frames:
            quiet_s = max(FLUSH_S, min(MAX_QUIET_S, self.tables.sample_bytes / SAMPLE_BYTES_PER_S))
            self._quiet_at = time.monotonic() + quiet_s
        with self.pending.changed:
            self._written = batch.ticket
            self.pending.changed.notify_all()
        self._limit.enforce(batch.sampled)

    def _samples(self, run: str, known: Known) -> News:
        sampler = self.sampler() if self.sampler is not None else None
        return sampler(run, known) if sampler is not None else News([], None, [])

    def _fail(self, why: str) -> None:
        self.failed = (
            f"the journal can't be written to {self._path} any more: {why}. What was written before is kept. To write "
            "again, make room or give another folder, and make a new Debugger."
        )
