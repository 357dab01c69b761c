"""The tree of runs and the snapshots along it: which run the model holds, and what can be gone back to.

Training thread only. Memory is bounded: the start, each run's latest epoch starts and the latest tips stay longest.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbdebug.records.commands import StartPoint
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Run
from nbdebug.training.snapshots import Snapshot

MAIN = "main"
MAX_BYTES = 1 << 30
MAX_SNAPSHOTS = 100


class Timeline:
    """Runs by name; of each the snapshots at its epoch starts, and its tip, kept when the model leaves it."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_snapshots: int = MAX_SNAPSHOTS) -> None:
        self.runs: dict[str, Run] = {MAIN: Run(MAIN)}
        self.current = MAIN
        self.start: Snapshot | None = None
        self._max_bytes = max_bytes
        self._max_snapshots = max_snapshots
        self._epochs: dict[str, list[Snapshot]] = {MAIN: []}
        self._tips: dict[str, Snapshot] = {}
        self._bytes = 0
        self._count = 0

    def keep(self, snapshot: Snapshot) -> None:
        """Keep the start of an epoch of the current run; the first of all is the start."""
        if self.start is None:
            self.start = snapshot
            return
        self._epochs[self.current].append(snapshot)
        self._added(snapshot)

    def leave(self, tip: Snapshot) -> None:
        """The model is about to leave the current run; ``tip`` is its latest state."""
        self._dropped(self._tips.pop(self.current, None))
        self._tips[self.current] = tip
        self._added(tip)

    def tip(self, run: str) -> Snapshot:
        """The latest state of a run that the model left.

        Raises:
            CommandError: it had to be let go for want of memory.
        """
        if run not in self._tips:
            raise CommandError(f"the latest state of {run!r} was let go, to stay within {self._max_bytes:,} bytes")
        return self._tips[run]

    def branch(self, at: Snapshot, change: str) -> Run:
        """A new run that begins at a snapshot; it becomes the current one."""
        run = Run(self._free_name(change or "rerun"), parent=at.run, step=at.step, change=change)
        self.runs[run.name] = run
        self._epochs[run.name] = []
        self.current = run.name
        return run

    def find(self, start: StartPoint, step: int) -> Snapshot:
        """The snapshot that a rerun starts from, when the current run has come to ``step``.

        Raises:
            CommandError: there is nothing to go back to.
        """
        if self.start is None or step == 0:
            raise CommandError("nothing to rerun yet: no step has been taken; call run(epochs=1) or press ▶ first")
        found = self.start if start is StartPoint.START else self._latest_before(step)
        if found.modules.lazy:
            raise CommandError(
                "can't go back to before the first step: the model's lazy layers had no shape then. "
                "Run the model once on a batch before making the Debugger"
            )
        return found

    def _latest_before(self, step: int) -> Snapshot:
        return max((s for s in self._lineage() if s.step < step), key=lambda s: s.step)

    def _lineage(self) -> Iterator[Snapshot]:
        """Epoch starts of the current run and of those that it came from, up to where it left them."""
        name: str | None = self.current
        limit: float = float("inf")
        while name is not None:
            yield from (snapshot for snapshot in self._epochs[name] if snapshot.step <= limit)
            limit, name = self.runs[name].step, self.runs[name].parent
        if self.start is not None:
            yield self.start

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.runs:
            count += 1
            name = f"{wanted} ({count})"
        return name

    def _added(self, snapshot: Snapshot) -> None:
        self._bytes += snapshot.size_bytes
        self._count += 1
        while (self._bytes > self._max_bytes or self._count > self._max_snapshots) and self._drop_one():
            pass

    def _dropped(self, snapshot: Snapshot | None) -> None:
        if snapshot is not None:
            self._bytes -= snapshot.size_bytes
            self._count -= 1

    def _drop_one(self) -> bool:
        """Let go of an old epoch start, else of the latest two of runs long left, else of the oldest tip but one."""
        others = [name for name, kept in self._epochs.items() if kept and name != self.current]
        full = next((kept for kept in self._epochs.values() if len(kept) > 2), None)
        if full is not None:
            self._dropped(full.pop(0))
        elif others:
            self._dropped(self._epochs[others[0]].pop(0))
        elif len(self._tips) > 1:
            self._dropped(self._tips.pop(next(iter(self._tips))))
        else:
            return False
        return True
