"""The tree of runs and the snapshots along it: which run the model holds, and what can be gone back to.

Training thread only; keeps at most ``max_bytes`` of snapshots besides the start and the tips.
"""

from __future__ import annotations

from collections.abc import Iterator

from nbdebug.records.commands import StartPoint
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Run
from nbdebug.training.snapshots import Snapshot

MAIN = "main"
MAX_BYTES = 1 << 30


class Timeline:
    """Runs by name; of each the snapshots at its epoch starts, and its tip, kept when the model leaves it."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.runs: dict[str, Run] = {MAIN: Run(MAIN)}
        self.current = MAIN
        self._max_bytes = max_bytes
        self._epochs: dict[str, list[Snapshot]] = {MAIN: []}
        self._tips: dict[str, Snapshot] = {}

    @property
    def start(self) -> Snapshot | None:
        """The state before the first step ever."""
        return self._epochs[MAIN][0] if self._epochs[MAIN] else None

    def keep(self, snapshot: Snapshot) -> None:
        """Keep the start of an epoch of the current run."""
        self._epochs[self.current].append(snapshot)
        self._thin()

    def leave(self, tip: Snapshot) -> None:
        """The model is about to leave the current run; ``tip`` is its latest state."""
        self._tips[self.current] = tip

    def tip(self, run: str) -> Snapshot:
        """The latest state of a run that the model left."""
        return self._tips[run]

    def branch(self, at: Snapshot, change: str) -> Run:
        """A new run that begins at a snapshot; it becomes the current one."""
        run = Run(self._free_name(change or "rerun"), parent=at.run, step=at.step, change=change)
        self.runs[run.name] = run
        self._epochs[run.name] = []
        self.current = run.name
        return run

    def find(self, start: StartPoint, step: int) -> Snapshot:
        """The snapshot that a rerun starts from, when the current run has come to ``step``."""
        if self.start is None or step == 0:
            raise CommandError("nothing to rerun yet: no step has been taken; call run(epochs=1) or press ▶ first")
        if start is StartPoint.START:
            return self.start
        return max((s for s in self._lineage() if s.step < step), key=lambda s: s.step)

    def _lineage(self) -> Iterator[Snapshot]:
        """Epoch starts of the current run and of those that it came from, up to where it left them."""
        name: str | None = self.current
        limit: float = float("inf")
        while name is not None:
            yield from (snapshot for snapshot in self._epochs[name] if snapshot.step <= limit)
            limit, name = self.runs[name].step, self.runs[name].parent

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        while name in self.runs:
            count += 1
            name = f"{wanted} ({count})"
        return name

    def _thin(self) -> None:
        """Let the oldest epoch starts go while all together are too big; the start and each run's last stay."""
        while sum(s.size_bytes for kept in self._epochs.values() for s in kept) > self._max_bytes:
            droppable = [
                (snapshot.step, name, index)
                for name, kept in self._epochs.items()
                for index, snapshot in enumerate(kept[:-2])
                if not (name == MAIN and index == 0)
            ]
            if not droppable:
                return
            _, name, index = min(droppable)
            del self._epochs[name][index]
