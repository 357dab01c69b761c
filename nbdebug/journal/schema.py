"""The file: its tables, its version, and how it is opened. An SQLite database in WAL mode; several may write to it.

Every debugger is a session, a row of its own; all that it writes carries its number. ``application_id`` says that a
database is ours, ``user_version`` which version of the tables it has.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
import weakref
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from nbdebug.records.errors import ConfigurationError, FileFormatError

FILE_NAME = "journal.sqlite"
APPLICATION_ID = 0x6E626467
BUSY_S = 5.0
READ_ONLY_CODES = (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
DAMAGE = (sqlite3.DatabaseError, UnicodeError)  # the latter where not even SQLite's message is text

TABLES_1 = """
CREATE TABLE sessions (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, started_s REAL NOT NULL,
    last_s REAL NOT NULL, ended_s REAL, process INTEGER NOT NULL, host TEXT NOT NULL, folder TEXT NOT NULL,
    rewritten INTEGER NOT NULL DEFAULT 0);
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, name TEXT NOT NULL,
    first_step INTEGER NOT NULL, last_step INTEGER NOT NULL, last_epoch INTEGER NOT NULL DEFAULT 0,
    last_s REAL NOT NULL, body BLOB NOT NULL, UNIQUE (session, name));
CREATE TABLE outcomes (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE findings (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE marks (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE interventions (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE manifests (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE snapshots (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL UNIQUE, body BLOB NOT NULL);
CREATE TABLE lines (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    signal TEXT NOT NULL, name TEXT NOT NULL, split TEXT NOT NULL, smooth INTEGER NOT NULL);
CREATE TABLE points (id INTEGER PRIMARY KEY AUTOINCREMENT, line INTEGER NOT NULL, start INTEGER NOT NULL,
    span INTEGER NOT NULL, width INTEGER NOT NULL, first_step INTEGER NOT NULL, steps BLOB, "values" BLOB NOT NULL);
CREATE TABLE samples (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    kind TEXT NOT NULL, slot INTEGER NOT NULL, step INTEGER NOT NULL, body BLOB NOT NULL, arrays BLOB,
    UNIQUE (session, run, kind, slot));
CREATE INDEX lines_of_run ON lines (session, run);
CREATE INDEX points_of_line ON points (line, start);
CREATE INDEX outcomes_of_run ON outcomes (session, run);
CREATE INDEX findings_of_run ON findings (session, run);
CREATE INDEX marks_of_run ON marks (session, run);
CREATE INDEX interventions_of_run ON interventions (session, run);
CREATE INDEX manifests_of_run ON manifests (session, run);
"""

COMPARISONS = """
CREATE TABLE comparisons (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE INDEX comparisons_of_run ON comparisons (session, run);
"""

SEARCHES = """
CREATE TABLE searches (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB, number INTEGER NOT NULL);
CREATE INDEX searches_of_run ON searches (session, run);
CREATE TABLE lr_curves (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE INDEX lr_curves_of_run ON lr_curves (session, run);
"""

PROOFS = """
CREATE TABLE proofs (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE INDEX proofs_of_run ON proofs (session, run);
"""

SAMPLE_PASSES = """
CREATE TABLE sample_sets (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE TABLE sample_passes (id INTEGER PRIMARY KEY AUTOINCREMENT, session INTEGER NOT NULL, run TEXT NOT NULL,
    body BLOB NOT NULL, arrays BLOB);
CREATE INDEX sample_passes_of_run ON sample_passes (session, run);
"""

# What leads from version n to n + 1 stands at n; version 0 is an empty file.
STEPS: tuple[str, ...] = (TABLES_1, COMPARISONS, SEARCHES, PROOFS, SAMPLE_PASSES)
VERSION = len(STEPS)

RECORD_TABLES = (
    *("outcomes", "findings", "marks", "interventions", "manifests", "comparisons", "searches", "lr_curves"),
    "proofs",
    *("sample_sets", "sample_passes"),
)


def locate(path: str | os.PathLike[str]) -> Path:
    """The journal's file: ``path`` itself, or the file in it where ``path`` is a folder, existing or to be made.

    Raises:
        ConfigurationError: it is no path.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise _no_path(path)
    try:
        path = Path(path).expanduser()
    except (TypeError, ValueError, RuntimeError) as error:
        raise _no_path(path) from error
    if "\0" in str(path):
        raise _no_path(path)
    return path / FILE_NAME if path.is_dir() or not (path.suffix or path.exists()) else path


def open_to_write(path: Path, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> sqlite3.Connection:
    """Open the journal in ``path``, made or migrated first where needed. Usable from any one thread at a time.

    Raises:
        ConfigurationError: the folder or file can't be made or written.
        FileFormatError: the file is something else, damaged, or of a newer version; it is left as it is.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _look_before(path)
        connection: sqlite3.Connection = connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    except (OSError, *DAMAGE) as error:
        raise unwritable(path, error) from error
    try:
        _prepare(connection, path)
    except BaseException as error:
        connection.close()
        if isinstance(error, DAMAGE):
            raise unwritable(path, error) from error
        raise
    return connection


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the journal in ``path`` without ever writing to it, in a folder that can't be written to as well.

    Raises:
        ConfigurationError: there is no such file, or it may not be read.
        FileFormatError: the file is something else, damaged, or of a newer version.
    """
    if not path.exists():
        raise ConfigurationError(f"no journal in {path}: give the file, or the folder .nbdebug that a debugger made")
    try:
        connection = _connect_to_read(path)
    except OSError as error:
        raise ConfigurationError(f"the journal in {path} can't be read: {error}") from error
    except DAMAGE as error:
        raise unreadable(path, error) from error
    try:
        _refuse_foreign(connection, path)
        if not _version(connection):
            raise FileFormatError(f"{path} is empty: nothing was ever recorded in it")
    except BaseException as error:
        connection.close()
        if isinstance(error, DAMAGE):
            raise unreadable(path, error) from error
        raise
    return connection


def unreadable(path: Path, error: Exception) -> ConfigurationError | FileFormatError:
    """The error for a look at a file that failed: another holds it for the moment, or it is damaged."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in BUSY_CODES:
        return ConfigurationError(f"the journal in {path} can't be read now: {error}; try again")
    return damaged(path, error)


def unwritable(path: Path, error: Exception) -> ConfigurationError | FileFormatError:
    """The error for a file that can't be opened to write: the disk or another process is in the way, or it is damaged.

    Of SQLite's own errors about what is in a file, an OperationalError, with the code of any mistake in a statement, is
    what names a table or column that must be there; one without a code is about text that is not UTF-8.
    """
    code = getattr(error, "sqlite_errorcode", None)
    in_the_way = isinstance(error, (OSError, sqlite3.OperationalError))
    if not in_the_way or (isinstance(error, sqlite3.OperationalError) and code in (None, sqlite3.SQLITE_ERROR)):
        return damaged(path, error)
    return ConfigurationError(
        f"the journal can't be written to {path}: {error}. Give another folder, or journal=None to keep it in memory "
        "only."
    )


def damaged(path: Path, error: Exception) -> FileFormatError:
    """The error for a file that SQLite, or we, can't make sense of."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_NOTADB:
        return FileFormatError(f"{path} is no journal of nbdebug, nor an SQLite database: give another path")
    return FileFormatError(
        f"{path} is damaged ({error}) and was left as it is: move it away, or give another path; what can be saved "
        "of it, SQLite's own .recover command saves"
    )


def _look_before(path: Path) -> None:
    """Refuse another program's file before it is opened to write, which alone may change it.

    Through SQLite, never by reading the file: closing it again would drop the locks of this process's other stores.
    """
    if not path.exists() or not path.stat().st_size:
        return
    try:
        connection = _tried(f"{path.absolute().as_uri()}?mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in READ_ONLY_CODES:
            return  # left by a crash, so that reading it takes writing: what it is shows when it is open
        raise
    with closing(connection):
        _refuse_foreign(connection, path)


def _refuse_foreign(connection: sqlite3.Connection, path: Path) -> None:
    """An empty database is none of another program; it may be a journal that is being made."""
    connection.execute("BEGIN")  # both at one moment
    try:
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        number = connection.execute("PRAGMA application_id").fetchone()[0]
    finally:
        connection.execute("COMMIT")
    if tables and number != APPLICATION_ID:
        raise FileFormatError(f"{path} is a database of another program, no journal of nbdebug: give another path")
    _refuse_newer(_version(connection), path)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(f"PRAGMA busy_timeout = {round(BUSY_S * 1000)}")
    _refuse_foreign(connection, path)
    if _version(connection) < VERSION:
        _migrate(connection, path)
    _use_wal(connection)
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA journal_size_limit = 4194304")
    connection.execute("SELECT count(*) FROM sessions").fetchone()


def _use_wal(connection: sqlite3.Connection) -> None:
    """The change takes the file for itself for a moment, and does not wait for its turn as other statements do."""
    end = time.monotonic() + BUSY_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _migrate(connection: sqlite3.Connection, path: Path) -> None:
    if _version(connection) == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = _version(connection)  # another process may have been here in between
        _refuse_newer(version, path)
        for step in STEPS[version:]:
            for statement in filter(str.strip, step.split(";")):
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _refuse_newer(version: int, path: Path) -> None:
    if version > VERSION:
        raise FileFormatError(
            f"{path} has version {version} of the journal's format, this nbdebug knows up to {VERSION}: "
            "update nbdebug, or give another path"
        )


def _connect_to_read(path: Path) -> sqlite3.Connection:
    uri = path.absolute().as_uri()
    try:
        return _tried(f"{uri}?mode=ro")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF not in READ_ONLY_CODES:
            raise
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() or not wal.stat().st_size:
        return _tried(f"{uri}?mode=ro&immutable=1")
    return _connect_to_copy(path)


def _connect_to_copy(path: Path) -> sqlite3.Connection:
    """What lies in the -wal file can only be read where -shm can be made: in a folder of our own."""
    folder = tempfile.TemporaryDirectory(prefix="nbdebug-")
    copy = Path(folder.name) / path.name
    for suffix in ("", "-wal"):
        shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    connection = _tried(f"{copy.as_uri()}?mode=rw", factory=_OfCopy)
    weakref.finalize(connection, folder.cleanup)
    return connection


class _OfCopy(sqlite3.Connection):
    """A connection that can be watched for its end, when the copy that it reads is to go."""


def _tried(uri: str, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_S, isolation_level=None, check_same_thread=False, factory=factory
    )
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except BaseException:
        connection.close()
        raise
    return connection


def _no_path(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"{given!r} is no path of a journal: give its file or folder as text or pathlib.Path, such as "
        '".nbdebug/journal.sqlite"'
    )
