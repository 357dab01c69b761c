"""Where a debugger's files go: the journal, and snapshots that have no room in memory. Any thread."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from numbers import Integral
from pathlib import Path
from typing import Any

from nbdebug.journal.schema import locate
from nbdebug.journal.store import Store
from nbdebug.records.errors import NbdebugError

FOLDER = Path(".nbdebug")
SWITCH = "NBDEBUG_JOURNAL"
OFF = ("0", "off", "no", "none", "false")


def mistakes(snapshot_bytes: Any, snapshot_folder: Any) -> list[str]:
    """Why snapshots can't be kept so."""
    found = []
    if isinstance(snapshot_bytes, bool) or not isinstance(snapshot_bytes, Integral) or int(snapshot_bytes) < 0:
        found.append(
            f"snapshot_bytes={snapshot_bytes!r}: give a number of bytes, such as 2 << 30; 0 puts all into files"
        )
    if snapshot_folder is not None and (why := _why_unwritable(Path(snapshot_folder))):
        found.append(
            f"snapshot_folder={str(snapshot_folder)!r} can't be used: {why}; give a folder that can be written"
        )
    return found


def journal_path(wanted: str | os.PathLike[str] | bool | None) -> Path | None:
    """The journal's file; ``None`` to keep it in memory only.

    ``True`` is ``.nbdebug/journal.sqlite`` in the working folder, unless the environment variable ``NBDEBUG_JOURNAL``
    names another file or folder, or says ``off``.
    """
    if wanted is True:
        said = os.environ.get(SWITCH, "")
        if said.lower() in OFF:
            return None
        wanted = said or FOLDER
    return None if wanted is None or wanted is False else locate(wanted)


def open_store(
    wanted: str | os.PathLike[str] | bool | None, on_error: Callable[[str], None]
) -> tuple[Store | None, str]:
    """The store of a journal, and why there is none if it was not asked for by name and can't be had.

    Raises:
        ConfigurationError, FileFormatError: the file that was asked for can't be used.
    """
    path = journal_path(wanted)
    if path is None:
        return None, ""
    try:
        return Store(path, on_error=on_error), ""
    except NbdebugError as error:
        if wanted is True:
            return None, str(error)
        raise


class SnapshotFolder:
    """The folder for a debugger's snapshot files, made when the first is written, and one's own."""

    def __init__(self, wanted: str | os.PathLike[str] | None, store: Store | None) -> None:
        self._wanted = Path(wanted) if wanted is not None else None
        self._store = store
        self._made: Path | None = None

    def make(self) -> Path:
        """The folder, there to be written to.

        Raises:
            OSError: it can't be made.
        """
        if self._made is None:
            parent = self._wanted or (self._store.path.parent / "snapshots" if self._store else None)
            if parent is not None:
                parent.mkdir(parents=True, exist_ok=True)
            self._made = Path(tempfile.mkdtemp(prefix="session-" if parent else "nbdebug-", dir=parent))
        return self._made

    def remove_if_empty(self) -> None:
        """Leave no empty folder behind."""
        if self._made is not None and self._made.is_dir() and not any(self._made.iterdir()):
            self._made.rmdir()


def _why_unwritable(folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return str(error)
