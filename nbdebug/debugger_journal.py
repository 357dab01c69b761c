"""Journal: what a debugger wrote down, opened from its file, here or in another process, during training or after.

Imports no torch. Reads only, a look at a time, from any thread.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from nbdebug.checks.courses import Told, told
from nbdebug.checks.ranking import ranked
from nbdebug.dashboard.dashboard import Dashboard
from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal as Memory
from nbdebug.journal.reader import Place, Reader, StoredSession
from nbdebug.journal.run_record import RunRecord
from nbdebug.journal.schema import locate
from nbdebug.records.commands import Checkout, Clip, Command, Outcome, Replicate, Rerun, Resume, Skip, Start, Step
from nbdebug.records.comparison import Comparison
from nbdebug.records.errors import ClosedError
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Course, Finding
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Run, RunKind
from nbdebug.records.samples import Samples
from nbdebug.records.search import SearchResult
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.status import KnobStates, Status
from nbdebug.records.view import Focus, View

LOG = logging.getLogger("nbdebug")
TRAINING = (Start, Resume, Step, Rerun, Replicate, Skip)
FRESH_S = 0.5
FIRST_LOOK_S = 0.05
REFUSAL = "this is a journal from disk: there is no training to act on; make a Debugger to train"
T = TypeVar("T")


class Journal:
    """A journal from disk. Displays as the dashboard did, and gives all that was recorded.

    Get one with :meth:`open`. While the debugger still writes, each look shows what is new: the file is read again
    when the last reading is older than half a second.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._lock = threading.RLock()
        self._memory = Memory()
        self._read_at = -FRESH_S
        self._refused: tuple[Outcome, ...] = ()
        self._kept_told: tuple[tuple[int, int, str], Told] = ((0, 0, ""), Told())
        self._dashboard: Dashboard | None = None
        self._finish = weakref.finalize(self, reader.close)
        self.refresh()
        self._await_first_step()

    @classmethod
    def open(cls, path: str | Path = ".nbdebug", session: str | None = None) -> Journal:
        """Open the journal in a file, or in the folder ``.nbdebug`` that a debugger made.

        ``session`` is an ``id`` of :attr:`sessions`; without one, the latest in which anything was trained.

        Raises:
            ConfigurationError: there is no such file or session, or it may not be read.
            FileFormatError: the file is no journal, is damaged, or of a newer version of nbdebug.
        """
        return cls(Reader(locate(path), session))

    def refresh(self) -> None:
        """Read what is new since the last time."""
        with self._lock:
            if self._finish.alive:
                self._memory = self._reader.update(self._memory)
            self._read_at = time.monotonic()

    def close(self) -> None:
        """Let go of the file; what was read stays. The last picture stays on the page. Safe to call twice."""
        with self._lock:
            self._finish()
        if self._dashboard is not None:
            self._dashboard.close()

    # -- what there is ------------------------------------------------------------------------------------------

    @property
    def path(self) -> Path:
        """The file."""
        return self._reader.path

    @property
    def session(self) -> str:
        """The session that is shown: one debugger, from its making to its end."""
        return self._reader.session

    @property
    def sessions(self) -> tuple[StoredSession, ...]:
        """All sessions in the file, oldest first, with their start, and the runs and steps of their training."""
        with self._lock:
            if not self._finish.alive:
                raise ClosedError(f"the journal in {self.path} was closed: open it again to list its sessions")
            return self._reader.sessions()

    @property
    def runs(self) -> dict[str, Run]:
        """The runs made to train, by name, oldest first; ``history.of`` also knows those that measured noise."""
        return _trained(self._fresh())

    @property
    def history(self) -> History:
        """The curves of the run trained last, back to the first step; ``history.of(name)`` those of another."""
        return History(_Followed(self), lambda: self.run)

    @property
    def run(self) -> str:
        """The name of the run that was trained last, or checked out after that."""
        return self._place()[0]

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that the debugger had to say, oldest first."""
        return self._fresh().findings

    @property
    def courses(self) -> tuple[Course, ...]:
        """What became of all that was found of the run trained last: since when, when gone, when back."""
        return self._told(self._fresh()).courses

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """What came of remedies that were tried, oldest first."""
        return self._fresh().proofs

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of every command, oldest first."""
        return self._fresh().outcomes

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The interventions in words, oldest first."""
        return self._fresh().marks

    @property
    def manifests(self) -> dict[str, Manifest]:
        """What the runs were made of, by run."""
        return self._fresh().manifests

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """The snapshots that there were; those with a path may still lie there."""
        return self._fresh().snapshots

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons made, oldest first."""
        return self._fresh().comparisons

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The searches made, oldest first."""
        return self._fresh().searches

    @property
    def samples(self) -> Samples:
        """The samples that were watched, over all passes of the run trained last."""
        return self._fresh().samples(self._place()[0])

    @property
    def lr_curves(self) -> tuple[LrCurve, ...]:
        """The range tests of learning rates made, oldest first."""
        return self._fresh().lr_curves

    def interventions(self, run: str) -> tuple[Intervention, ...]:
        """What changed the course of a run, oldest first; its own, not its parents'."""
        memory = self._fresh()
        if run not in memory.runs:
            raise KeyError(f"no run {run!r}: there are {', '.join(_trained(memory)) or 'none'}")
        return memory.interventions(run)

    def __repr__(self) -> str:
        memory = self._fresh()
        run, place = self._place()
        skipped = self._reader.skipped
        lines = [
            f"<Journal {self.path}, session {self.session}: {_count(len(_trained(memory)), 'run')}, "
            f"{_count(len(memory.findings), 'finding')}; run {run!r} came to epoch {place.epoch}, step {place.step:,}>"
        ]
        if skipped:
            lines.append(f"{_count(skipped, 'record')} could not be read: of a newer nbdebug, or damaged")
        return "\n".join(lines)

    def _repr_mimebundle_(self, **options: Any) -> Any:
        if self._dashboard is None:
            self._dashboard = Dashboard(self._view, self._refuse)
        return self._dashboard.mimebundle(**options)

    # -- inside -------------------------------------------------------------------------------------------------

    def _fresh(self) -> Memory:
        """What is in the file; while that holds no curve, it is read at each look, for one may be on its way."""
        with self._lock:
            if time.monotonic() - self._read_at > FRESH_S or not self._has_curves():
                self.refresh()
            return self._memory

    def _await_first_step(self) -> None:
        """What was trained this very moment is written within milliseconds; who opens the file then is to see it."""
        end = time.monotonic() + FIRST_LOOK_S
        while not self._has_curves() and self._is_being_written() and time.monotonic() < end:
            time.sleep(FIRST_LOOK_S / 10)
            self.refresh()

    def _is_being_written(self) -> bool:
        shown = next((one for one in self.sessions if one.id == self.session), None)
        return shown is not None and shown.ended_s is None and abs(time.time() - shown.last_s) < 1.0

    def _has_curves(self) -> bool:
        memory = self._memory
        return any(memory.read(run, lambda kept: bool(kept.curves)) for run in memory.runs)

    def _place(self) -> tuple[str, Place]:
        """The run in the model at last, and how far it came; measurements of noise are no training."""
        memory, places = self._fresh(), self._reader.places
        runs, held = _trained(memory), _checked_out(memory)
        trained = [*(name for name in places if name in runs), *(name for name in [held] if name in runs)]
        name = trained[-1] if trained else next(reversed(runs), "main")
        return name, places.get(name, Place(0, 0, 0.0))

    def _told(self, memory: Memory) -> Told:
        """What was found of the run in the model; the same object while nothing comes or goes."""
        run = self._place()[0]
        key = (id(memory), memory.tellings, run)
        if self._kept_told[0] != key:
            self._kept_told = (key, told(memory.told, memory.lineage(run)) if run in memory.runs else Told())
        return self._kept_told[1]

    def _view(self, max_points: int, focus: Focus | None = None) -> View:
        """One look at everything, for the dashboard. Any thread."""
        with self._lock:
            memory = self._fresh()
            run, place = self._place()
            found = self._told(memory)
            status = Status(run=run, epoch=place.epoch, step=place.step, last_step=place.step)
            return View(
                status=status,
                knobs=KnobStates((), "", Clip(), ()),
                runs=memory.run_views(max_points),
                marks=memory.marks,
                layers=memory.layers_view(run, focus),
                findings=ranked(found.standing)[:50],
                outcomes=(*memory.outcomes, *self._refused)[-20:],
                snapshots=memory.snapshots,
                comparison=next(reversed(memory.comparisons), None),
                stored=True,
                samples=memory.samples(run),
                lr_curve=next(reversed(memory.lr_curves), None),
                search=next(reversed(memory.searches), None),
                courses=found.courses,
                proofs=memory.proofs,
            )

    def _refuse(self, command: Command) -> None:
        """What the dashboard asks for can't be done; it shows as an outcome."""
        run, place = self._place()
        self._refused = (*self._refused[-19:], Outcome(command, run, place.step, False, REFUSAL))
        LOG.info("%s refused: %s", type(command).__name__, REFUSAL)


class _Followed:
    """What a history reads from: the journal's memory as it is at each look."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    @property
    def runs(self) -> dict[str, Run]:
        return self._journal._fresh().runs

    def lineage(self, run: str) -> list[tuple[str, int | None]]:
        memory = self._journal._fresh()
        return memory.lineage(run) if run in memory.runs else []

    def read(self, run: str, look: Callable[[RunRecord], T]) -> T:
        return self._journal._fresh().read(run, look)


def _checked_out(memory: Memory) -> str:
    """The run of the latest checkout, empty if anything was trained since."""
    for outcome in reversed(memory.outcomes):
        if outcome.ok and isinstance(outcome.command, TRAINING):
            return ""
        if outcome.ok and isinstance(outcome.command, Checkout):
            return outcome.run
    return ""


def _trained(memory: Memory) -> dict[str, Run]:
    """The runs but those that only measured noise."""
    return {name: run for name, run in memory.runs.items() if run.kind is RunKind.TRAINING}


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
