"""Transaction: all of what is written in it, or nothing. On the writer's thread only."""

from __future__ import annotations

import sqlite3


class FileBusy(Exception):
    """Another process held the file for longer than we wait; nothing was changed, so it can be tried again."""


class Transaction:
    """A write transaction, begun as such: it waits for its turn at the start and can't be refused it later."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY:
                raise FileBusy(str(error)) from error
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
