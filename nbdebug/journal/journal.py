"""Journal: what happened in every run. Written by the training thread, read by any; locked throughout."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from nbdebug.journal.layers import Known, News
from nbdebug.journal.pending import (
    Entry,
    RunBegun,
    RunDeleted,
    RunEdited,
    SnapshotsTaken,
    Taken,
    TakenRows,
    UnseenTold,
)
from nbdebug.journal.run_record import RunRecord
from nbdebug.journal.sample_passes import SamplePasses
from nbdebug.journal.store import Store
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.finder import LrCurve
from nbdebug.records.findings import Finding, Gone
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import Unseen
from nbdebug.records.manifest import Manifest
from nbdebug.records.proofs import Proof
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.samples import SamplePass, Samples, SampleSet
from nbdebug.records.search import SearchResult
from nbdebug.records.signals import Series
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.view import Focus, LayersView, Points, RunView

MAX_OUTCOMES = 10_000
MAX_COMPARISONS = 100
MAX_SEARCHES = 100
MAX_LR_CURVES = 100
MAX_PROOFS = 100
MAX_LAYER_BYTES = 128 << 20
NOTHING_KNOWN = LayersView()
T = TypeVar("T")


class Journal:
    """Runs with their curves, outcomes, findings and marks. ``version`` changes with every entry.

    With a ``store``, all of it goes to a file as well. Runs and manifests are in the file when the method returns, or
    later where another process holds the file for more than five seconds; the rest follows within a second, and
    nobody waits for it.
    """

    def __init__(self, store: Store | None = None) -> None:
        self.version = 0
        self._lock = threading.RLock()
        self._runs: dict[str, RunRecord] = {}
        self._outcomes: deque[Outcome] = deque(maxlen=MAX_OUTCOMES)
        self._told: deque[Finding | Gone] = deque(maxlen=MAX_OUTCOMES)
        self._proofs: deque[Proof] = deque(maxlen=MAX_PROOFS)
        self._sampled = SamplePasses()
        self._tellings = 0
        self._marks: deque[Mark] = deque(maxlen=MAX_OUTCOMES)
        self._manifests: dict[str, Manifest] = {}
        self._comparisons: deque[Comparison] = deque(maxlen=MAX_COMPARISONS)
        self._searches: deque[SearchResult] = deque(maxlen=MAX_SEARCHES)
        self._lr_curves: deque[LrCurve] = deque(maxlen=MAX_LR_CURVES)
        self.snapshots: tuple[SnapshotInfo, ...] = ()
        self._store = store
        if store is not None:
            store.attach(self._news)

    @property
    def path(self) -> Path | None:
        """The file that all goes to, ``None`` for memory only."""
        return self._store.path if self._store is not None else None

    def close(self) -> None:
        """Write what is not yet in the file, and let go of it; the journal in memory stays. Safe to call twice."""
        if self._store is not None:
            self._store.close()

    def begin_run(self, run: Run) -> None:
        """A run exists from now on."""
        with self._lock:
            self._runs[run.name] = RunRecord(run, last_step=run.step)
            self._keep(RunBegun(run))
        self._sync()

    def edit_run(self, run: Run) -> None:
        """A run of that name got another title, note, pin or caveat."""
        with self._lock:
            self._runs[run.name].run = run
            self._keep(RunEdited(run))
        self._sync()

    def delete_run(self, name: str) -> None:
        """Forget a run, its marks and its manifest with it."""
        with self._lock:
            self._forget(name)
            self._keep(RunDeleted(name))
        self._sync()

    def record_intervention(self, intervention: Intervention) -> None:
        """Keep what changed a run's course."""
        with self._lock:
            self._runs[intervention.run].interventions.append(intervention)
            self._keep(intervention)

    def record_snapshots(self, snapshots: tuple[SnapshotInfo, ...]) -> None:
        """Take note of all snapshots that there are now."""
        with self._lock:
            self.snapshots = snapshots
            self._keep(SnapshotsTaken(snapshots))

    def record_manifest(self, manifest: Manifest) -> None:
        """Keep what a run is made of."""
        with self._lock:
            self._manifests[manifest.run] = manifest
            self._keep(manifest)
        self._sync()

    def record_comparison(self, comparison: Comparison) -> None:
        """Keep a comparison; the latest is drawn."""
        with self._lock:
            self._comparisons.append(comparison)
            self._keep(comparison)

    def record_search(self, search: SearchResult) -> None:
        """Keep what a search found so far; it takes the place of what was known of the same one before."""
        with self._lock:
            others = [each for each in self._searches if each.number != search.number]
            self._searches = deque([*others, search], maxlen=MAX_SEARCHES)
            self._keep(search)

    def record_lr_curve(self, curve: LrCurve) -> None:
        """Keep what a range test found; the latest is drawn."""
        with self._lock:
            self._lr_curves.append(curve)
            self._keep(curve)

    @property
    def manifests(self) -> dict[str, Manifest]:
        """What the runs are made of, by run."""
        with self._lock:
            return dict(self._manifests)

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The latest comparisons, oldest first."""
        with self._lock:
            return tuple(self._comparisons)

    @property
    def searches(self) -> tuple[SearchResult, ...]:
        """The latest searches, oldest first."""
        with self._lock:
            return tuple(self._searches)

    @property
    def lr_curves(self) -> tuple[LrCurve, ...]:
        """The latest range tests of learning rates, oldest first."""
        with self._lock:
            return tuple(self._lr_curves)

    def interventions(self, run: str) -> tuple[Intervention, ...]:
        """What changed the course of a run, oldest first; its own, not its parents'."""
        with self._lock:
            return tuple(self._runs[run].interventions)

    def record(self, frame: Frame) -> None:
        """Take in a frame; steps of a series only grow."""
        with self._lock:
            kept = self._runs[frame.run]
            smooth = kept.record(frame)
            sampled = kept.is_sample(frame)
            if sampled:
                self._bound_layers(frame.run)
            self.version += 1
            if self._store is not None:
                self._store.record(Taken.of(frame, smooth), sampled=sampled)

    def record_rows(self, rows: Rows) -> None:
        """Take in the numbers of ordinary steps; those of a series only grow."""
        if not len(rows.steps):
            return
        with self._lock:
            columns = np.ascontiguousarray(rows.values.T)  # a copy: what is on record must not change
            smooth = self._runs[rows.run].record_rows(rows, columns)
            self.version += 1
            if self._store is not None:
                self._store.record(TakenRows(rows, columns, smooth))

    def record_unseen(self, run: str, unseen: tuple[Unseen, ...]) -> None:
        """Keep all that can't be looked at in a run; it takes the place of what was said before."""
        with self._lock:
            self._runs[run].unseen = unseen
            self._keep(UnseenTold(run, unseen))

    def record_outcome(self, outcome: Outcome) -> None:
        """Keep what became of a command."""
        with self._lock:
            self._outcomes.append(outcome)
            self._keep(outcome)

    def record_finding(self, finding: Finding) -> None:
        """Keep a finding."""
        with self._lock:
            self._told.append(finding)
            self._tellings += 1
            self._keep(finding)

    def record_gone(self, gone: Gone) -> None:
        """Keep that something is found no more."""
        with self._lock:
            self._told.append(gone)
            self._tellings += 1
            self._keep(gone)

    def record_proof(self, proof: Proof) -> None:
        """Keep what came of a remedy."""
        with self._lock:
            self._proofs.append(proof)
            self._keep(proof)

    def mark(self, mark: Mark) -> None:
        """Mark an intervention on the curves."""
        with self._lock:
            self._marks.append(mark)
            self._keep(mark)

    def record_sample_set(self, made: SampleSet) -> None:
        """These samples are watched from now on."""
        with self._lock:
            self._sampled.record_set(made)
            self._keep(made)

    def record_sample_pass(self, made: SamplePass) -> None:
        """Keep what the model made of the samples at a step."""
        with self._lock:
            self._sampled.record_pass(made)
            self._keep(made)

    def samples(self, run: str, step: int | None = None) -> Samples:
        """The passes that led to a step of a run (its last one without); the same object while nothing is new."""
        with self._lock:
            return self._sampled.of(self.lineage(run) if run in self._runs else [], step)

    @property
    def runs(self) -> dict[str, Run]:
        """All runs by name, oldest first."""
        with self._lock:
            return {name: kept.run for name, kept in self._runs.items()}

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of the latest commands, oldest first."""
        with self._lock:
            return tuple(self._outcomes)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, oldest first."""
        with self._lock:
            return tuple(each for each in self._told if isinstance(each, Finding))

    @property
    def told(self) -> tuple[Finding | Gone, ...]:
        """All findings, and what was found no more, in the order in which it was told."""
        with self._lock:
            return tuple(self._told)

    @property
    def tellings(self) -> int:
        """How often a finding came or went: while this stays, so do they."""
        return self._tellings

    @property
    def proofs(self) -> tuple[Proof, ...]:
        """What came of remedies, oldest first."""
        with self._lock:
            return tuple(self._proofs)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The latest interventions, oldest first."""
        with self._lock:
            return tuple(self._marks)

    def read(self, run: str, look: Callable[[RunRecord], T]) -> T:
        """Call ``look`` on a run's record while nobody writes; it must copy what it keeps."""
        with self._lock:
            return look(self._runs[run])

    def lineage(self, run: str) -> list[tuple[str, int | None]]:
        """The runs that led to this one, oldest first, each with its last step that counts (``None``: all)."""
        with self._lock:
            line: list[tuple[str, int | None]] = [(run, None)]
            at = self._runs[run].run
            while at.parent is not None:
                line.append((at.parent, at.step))
                at = self._runs[at.parent].run
            return line[::-1]

    def unseen(self, run: str) -> tuple[Unseen, ...]:
        """What can't be looked at in a run, as far as it, or those that it came from, have said."""
        with self._lock:
            told = (self._runs[name].unseen for name, _ in reversed(self.lineage(run)))
            return next((unseen for unseen in told if unseen is not None), ())

    def layers_view(self, run: str, focus: Focus | None = None) -> LayersView:
        """What is known of a run's layers, and what ``focus`` asks for; the same objects until something new came.

        A run that has no sample of its own yet shows those of the run that it came from, if none is of a later step
        than the one where they part.
        """
        with self._lock:
            if run not in self._runs:
                return NOTHING_KNOWN
            for name, last in reversed(self.lineage(run)):
                layers = self._runs[name].layers
                if layers and (last is None or layers.step <= last):
                    return layers.view(focus, self.unseen(run))
            return self._runs[run].layers.view(focus, self.unseen(run))

    def run_views(self, max_points: int) -> tuple[RunView, ...]:
        """Every run as drawn, oldest first, with at most about ``max_points`` points a curve."""
        with self._lock:
            return tuple(kept.view(max_points) for kept in self._runs.values())

    def extend(self, run: str, series: Series, points: Points, *, smooth: bool = False) -> None:
        """Add many values to a curve at once, such as from a file; ``smooth`` means the smoothed training loss."""
        with self._lock:
            self._runs[run].extend(series, points.steps, points.values, smooth=smooth)
            self.version += 1

    def reach(self, run: str, step: int) -> None:
        """A run came as far as ``step``, says a file."""
        with self._lock:
            self._runs[run].last_step = step

    def take_in(self, run: str, news: News) -> None:
        """Take in what is known elsewhere of a run's layers, such as in a file."""
        with self._lock:
            self._runs[run].layers.take_in(news)
            self._bound_layers(run)
            self.version += 1

    def _news(self, run: str, known: Known) -> News:
        """For the writer: what it does not know yet of a run's layers."""
        with self._lock:
            kept = self._runs.get(run)
            return kept.layers.news(known) if kept is not None else News([], None, [])

    def _bound_layers(self, run: str) -> None:
        """All runs' layers in bounded memory: the largest record but this run's is thinned, again and again."""
        sizes = {name: kept.layers.size_bytes for name, kept in self._runs.items()}
        excess, others = sum(sizes.values()) - MAX_LAYER_BYTES, {name for name in sizes if name != run}
        while excess > 0 and others:
            name = max(others, key=sizes.__getitem__)
            layers = self._runs[name].layers
            if not layers.shrink():
                others.discard(name)
            excess -= sizes[name] - layers.size_bytes
            sizes[name] = layers.size_bytes

    def _forget(self, run: str) -> None:
        del self._runs[run]
        self._manifests.pop(run, None)
        self._sampled.forget(run)
        self._marks = deque((mark for mark in self._marks if mark.run != run), maxlen=MAX_OUTCOMES)

    def _keep(self, entry: Entry) -> None:
        self.version += 1
        if self._store is not None:
            self._store.put(entry)

    def _sync(self) -> None:
        """Not under the lock: the writer may need it to come to an end."""
        if self._store is not None:
            self._store.sync()
