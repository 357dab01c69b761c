"""The shelf: snapshots kept within a budget of memory, or on disk, thinned where there are too many. Training thread.

When room is needed, the snapshot goes whose absence lengthens the least replays, by the measure of how long ago they
would begin: so they lie dense near the present and sparser towards the start. Kept as long as there is any room: the
start, the best epoch of each run, pinned ones, and what stands after a change that can't be done again.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nbdebug.records.errors import CommandError
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.training import snapshot_file
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.timeline import Place

MEMORY_BYTES = 1 << 30
DISK_BYTES = 16 << 30
MOST = 600
SPARE_DISK_BYTES = 256 << 20
PROTECTED = (Reason.START, Reason.OUTSIDE)


@dataclass
class Kept:
    """A snapshot on the shelf: in memory (``state``), or in a file of ours (``path``).

    ``equipment`` stays in memory with it: the optimizer, the schedule and the modules that it is of.
    """

    name: str
    place: Place
    reason: Reason
    size_bytes: int
    state: Snapshot | None
    path: Path | None = None
    pinned: bool = False
    best: bool = False
    equipment: Any = None

    @property
    def may_go(self) -> bool:
        """Whether it can go at all."""
        return not self.pinned and self.reason is not Reason.START

    @property
    def protected(self) -> bool:
        """Whether it only goes when nothing else is left."""
        return self.pinned or self.best or self.reason in PROTECTED

    def load(self) -> Snapshot:
        """The state itself.

        Raises:
            FileFormatError: its file is gone or damaged.
        """
        if self.state is not None:
            return self.state
        assert self.path is not None
        return replace(snapshot_file.read(self.path)[0], equipment=self.equipment)

    @property
    def info(self) -> SnapshotInfo:
        """What is told of it."""
        path = str(self.path) if self.path else ""
        at = self.place
        return SnapshotInfo(
            self.name, at.run, at.step, at.epoch, self.reason, self.size_bytes, path, self.pinned, self.best
        )


class Shelf:
    """All snapshots of one session.

    Args:
        memory_bytes: how much may lie in memory; 0 puts everything into files.
        folder: makes the folder for files, when one is needed.
        spill: whether what memory has no room for goes to files, rather than away.
        complain: told, in a sentence, when a snapshot could not be written.
    """

    def __init__(
        self,
        memory_bytes: int = MEMORY_BYTES,
        *,
        folder: Callable[[], Path],
        spill: bool = False,
        complain: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.memory_bytes = memory_bytes
        self.spill = spill
        self.version = 0
        self._folder = folder
        self._complain = complain
        self._kept: list[Kept] = []
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._kept)

    @property
    def used_bytes(self) -> int:
        """What lies in memory."""
        return sum(kept.size_bytes for kept in self._kept if kept.path is None)

    def infos(self) -> tuple[SnapshotInfo, ...]:
        """What is told of all, in the order in which they were taken."""
        return tuple(kept.info for kept in self._kept)

    def of(self, run: str) -> list[Kept]:
        """The snapshots of a run, in the order in which they were taken."""
        return [kept for kept in self._kept if kept.place.run == run]

    def at(self, place: Place) -> Kept | None:
        """The snapshot of exactly this place."""
        return next((kept for kept in self._kept if kept.place == place), None)

    def named(self, name: str) -> Kept:
        """A snapshot by name.

        Raises:
            CommandError: there is none.
        """
        found = next((kept for kept in self._kept if kept.name == name), None)
        if found is None:
            known = ", ".join(repr(kept.name) for kept in self._kept[-5:])
            raise CommandError(f"no snapshot {name!r}" + (f": the latest are {known}" if known else ": there is none"))
        return found

    def nearest(self, legs: list[Place], wanted: Callable[[Kept], bool] | None = None) -> Kept | None:
        """The latest snapshot from which the last of these places can be reached: on the way there, if ``wanted``."""
        for leg in reversed(legs):
            before = [kept for kept in self.of(leg.run) if leg.reaches(kept.place)]
            before.sort(key=lambda kept: (kept.place.step, kept.place.epoch, kept.place.applied), reverse=True)
            found = next((kept for kept in before if wanted is None or wanted(kept)), None)
            if found is not None:
                return found
        return None

    def add(self, place: Place, snapshot: Snapshot, reason: Reason, *, name: str = "", pinned: bool = False) -> Kept:
        """Keep a snapshot; one of the same place and no reason of its own gives way to it.

        Raises:
            CommandError: there is no room for it, neither in memory nor, where that is meant to be used, on disk.
        """
        kept = Kept(self._free_name(name or f"{place.run}@{place.step}"), place, reason, snapshot.size_bytes, snapshot)
        kept.pinned, kept.equipment = pinned, snapshot.equipment
        for double in [each for each in self._kept if each.place == place and not each.protected]:
            self._remove(double)
        self._kept.append(kept)
        self.version += 1
        self._make_room(kept)
        return kept

    def drop(self, name: str) -> None:
        """Let a snapshot go.

        Raises:
            CommandError: there is none of this name, or it is the start.
        """
        kept = self.named(name)
        if kept.reason is Reason.START:
            raise CommandError(f"snapshot {name!r} is the start, which everything else comes from; it stays")
        self._remove(kept)

    def drop_run(self, run: str) -> None:
        """Let all snapshots of a run go."""
        for kept in self.of(run):
            self._remove(kept)

    def rename_run(self, old: str, new: str) -> None:
        """A run got another name."""
        for kept in self.of(old):
            kept.place = replace(kept.place, run=new)
        self.version += 1

    def mark_best(self, run: str, best: Kept | None) -> None:
        """The best of a run is this one now."""
        for kept in self.of(run):
            kept.best = kept is best
        self.version += 1

    def clear_files(self) -> None:
        """Delete the files of all that is not pinned: nobody can come back to them when the session is over."""
        for kept in self._kept:
            if kept.path is not None and not kept.pinned:
                kept.path.unlink(missing_ok=True)

    # -- inside -------------------------------------------------------------------------------------------------

    def prepare(self, size_bytes: int, now: Place) -> None:
        """Make room for a snapshot of this size before it is taken, so that the budget holds at every moment."""
        self._free_memory(None, now, size_bytes)

    def _make_room(self, newest: Kept) -> None:
        now = newest.place
        if newest.size_bytes > self.memory_bytes:
            try:
                self._write(newest)
            except CommandError:
                self._remove(newest)
                raise
        if not self._free_memory(newest, now):
            self._remove(newest)
            raise CommandError(
                f"no room for a snapshot of {newest.size_bytes:,} bytes: {self.used_bytes:,} of "
                f"{self.memory_bytes:,} bytes are taken by ones that are kept; drop some, or give "
                "Debugger(snapshot_bytes=...) more, or snapshot_folder=... to put them on disk"
            )
        while len(self._kept) > MOST or self._disk_bytes() > DISK_BYTES:
            among = self._kept if len(self._kept) > MOST else [kept for kept in self._kept if kept.path is not None]
            victim = self._least_missed(newest, now, among)
            if victim is None:
                break
            self._remove(victim)

    def _free_memory(self, newest: Kept | None, now: Place, extra_bytes: int = 0) -> bool:
        """Take snapshots out of memory until it has room; whether it has."""
        stuck: list[Kept] = []
        while self.used_bytes + extra_bytes > self.memory_bytes:
            among = [kept for kept in self._in_memory() if not any(kept is each for each in stuck)]
            victim = self._least_missed(newest, now, among, to_files=self.spill)
            if victim is None:
                return False
            if not self._try_clear(victim):
                stuck.append(victim)
        return True

    def _try_clear(self, kept: Kept) -> bool:
        """Take a snapshot out of memory: into a file where that is meant, else away. Whether it could."""
        if self.spill and self._try_write(kept):
            return True
        if kept.may_go:
            self._remove(kept)
        return kept.may_go

    def _disk_bytes(self) -> int:
        return sum(kept.size_bytes for kept in self._kept if kept.path is not None)

    def _in_memory(self) -> list[Kept]:
        return [kept for kept in self._kept if kept.path is None]

    def _least_missed(
        self, newest: Kept | None, now: Place, among: Iterable[Kept], *, to_files: bool = False
    ) -> Kept | None:
        """Which of these to let go: the one that replays miss least, else an old change from outside, an old best.

        Into files any may go, the start and pinned ones too.
        """
        loose = [kept for kept in among if kept is not newest and (to_files or kept.may_go)]
        free = [kept for kept in loose if not kept.protected]
        if not free:
            return next((kept for kept in loose if not kept.best), next(iter(loose), None))
        gaps = self._gaps(now)
        return min(free, key=lambda kept: gaps[kept.name])

    def _gaps(self, now: Place) -> dict[str, float]:
        """By name, the gap that each would leave, as a share of the way back to it."""
        lines: dict[str, list[Kept]] = {}
        for kept in self._kept:
            lines.setdefault(kept.place.run, []).append(kept)
        gaps = {}
        for line in lines.values():
            line.sort(key=lambda kept: (kept.place.step, kept.place.epoch, kept.place.applied))
            steps = [kept.place.step for kept in line]
            for kept, before, after in zip(line, [steps[0] - 1, *steps], [*steps[1:], now.step], strict=False):
                gap = max(after, kept.place.step) - before
                gaps[kept.name] = (gap + 1) / (abs(now.step - kept.place.step) + 1)
        return gaps

    def _try_write(self, kept: Kept) -> bool:
        try:
            self._write(kept)
        except CommandError as error:
            self._complain(str(error))
            return False
        return True

    def _write(self, kept: Kept) -> None:
        """Move a snapshot from memory into a file."""
        assert kept.state is not None
        try:
            folder = self._folder()
            room = shutil.disk_usage(folder).free
        except OSError as error:
            raise CommandError(f"no folder for snapshots: {error}; give Debugger(snapshot_folder=...)") from error
        if room < kept.size_bytes + SPARE_DISK_BYTES:
            raise CommandError(
                f"no room for a snapshot of {kept.size_bytes:,} bytes: {folder} has {room:,} bytes left; give "
                "Debugger(snapshot_folder=...) a folder with more room"
            )
        path = folder / f"{next(self._numbers):05d}.safetensors"
        about = {"run": kept.place.run, "step": kept.place.step, "name": kept.name}
        snapshot_file.write(kept.state, path, about=about)
        kept.path, kept.state = path, None
        self.version += 1

    def _remove(self, kept: Kept) -> None:
        if kept in self._kept:
            self._kept.remove(kept)
            self.version += 1
        if kept.path is not None:
            kept.path.unlink(missing_ok=True)

    def _free_name(self, wanted: str) -> str:
        taken = {kept.name for kept in self._kept}
        names = itertools.chain([wanted], (f"{wanted} ({count})" for count in itertools.count(2)))
        return next(name for name in names if name not in taken)
