"""Journal: what happened in every run. Written by the training thread, read by any; locked throughout."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nbdebug.journal.pending import Entry, RunBegun, RunDeleted, RunEdited, SnapshotsTaken
from nbdebug.journal.samples import SampleKind, Samples, latter, peaks
from nbdebug.journal.series import TRAIN_LOSS, VAL_LOSS, Curve, Smoothed, Thinned
from nbdebug.journal.store import Store
from nbdebug.records.commands import Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.findings import Finding
from nbdebug.records.frames import Activations, Frame, GradientFlow
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Intervention, Mark, Run
from nbdebug.records.signals import Series, Signal
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.view import Points, RunView

MAX_OUTCOMES = 10_000
MAX_COMPARISONS = 100
NO_POINTS = Points(np.zeros(0, dtype=np.int64), np.zeros(0))
T = TypeVar("T")


@dataclass
class RunRecord:
    """All that is kept of one run; its own steps only."""

    run: Run
    curves: dict[Series, Curve] = field(default_factory=dict)
    smooth: Smoothed = field(default_factory=Smoothed)
    gradients: Thinned[GradientFlow] = field(default_factory=lambda: Thinned(peaks))
    activations: Thinned[Activations] = field(default_factory=lambda: Thinned(latter, 128))
    interventions: list[Intervention] = field(default_factory=list)
    last_step: int = 0


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
        self._findings: deque[Finding] = deque(maxlen=MAX_OUTCOMES)
        self._marks: deque[Mark] = deque(maxlen=MAX_OUTCOMES)
        self._manifests: dict[str, Manifest] = {}
        self._comparisons: deque[Comparison] = deque(maxlen=MAX_COMPARISONS)
        self.snapshots: tuple[SnapshotInfo, ...] = ()
        self._store = store
        if store is not None:
            store.attach(self._samples)

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

    def interventions(self, run: str) -> tuple[Intervention, ...]:
        """What changed the course of a run, oldest first; its own, not its parents'."""
        with self._lock:
            return tuple(self._runs[run].interventions)

    def record(self, frame: Frame) -> None:
        """Take in a frame; steps of a run only grow."""
        with self._lock:
            kept = self._runs[frame.run]
            smooth = None
            for series, value in frame.scalars:
                curve = kept.curves.get(series)
                if curve is None:
                    curve = kept.curves[series] = Curve()
                curve.append(frame.step, value)
                if series == TRAIN_LOSS:
                    smooth = kept.smooth.append(frame.step, value)
            if frame.gradients is not None:
                kept.gradients.append(frame.step, frame.gradients)
            if frame.activations is not None:
                kept.activations.append(frame.step, frame.activations)
            kept.last_step = frame.step
            self.version += 1
            if self._store is not None:
                self._store.record(frame, smooth)

    def record_outcome(self, outcome: Outcome) -> None:
        """Keep what became of a command."""
        with self._lock:
            self._outcomes.append(outcome)
            self._keep(outcome)

    def record_finding(self, finding: Finding) -> None:
        """Keep a finding."""
        with self._lock:
            self._findings.append(finding)
            self._keep(finding)

    def mark(self, mark: Mark) -> None:
        """Mark an intervention on the curves."""
        with self._lock:
            self._marks.append(mark)
            self._keep(mark)

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
            return tuple(self._findings)

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

    def latest_gradients(self, run: str) -> tuple[GradientFlow | None, int]:
        """The newest gradient flow of a run, or of those it came from, and its step."""
        return self._latest(run, lambda kept: (kept.gradients.latest, kept.gradients.latest_step))

    def latest_activations(self, run: str) -> tuple[Activations | None, int]:
        """The newest activation histograms of a run, or of those it came from, and their step."""
        return self._latest(run, lambda kept: (kept.activations.latest, kept.activations.latest_step))

    def run_views(self, max_points: int) -> tuple[RunView, ...]:
        """Every run as drawn, oldest first, with at most about ``max_points`` points a curve."""
        with self._lock:
            return tuple(_run_view(kept, max_points) for kept in self._runs.values())

    def extend(self, run: str, series: Series, points: Points, *, smooth: bool = False) -> None:
        """Add many values to a curve at once, such as from a file; ``smooth`` means the smoothed training loss."""
        with self._lock:
            kept = self._runs[run]
            curve = kept.smooth.curve if smooth else kept.curves.setdefault(series, Curve())
            curve.extend(points.steps, points.values)
            self.version += 1

    def reach(self, run: str, step: int) -> None:
        """A run came as far as ``step``, says a file."""
        with self._lock:
            self._runs[run].last_step = step

    def replace_samples(self, samples: Samples) -> None:
        """Take over a run's layer records, such as from a file."""
        with self._lock:
            kept = self._runs[samples.run]
            thinned: Thinned[Any] = kept.gradients if samples.kind is SampleKind.GRADIENTS else kept.activations
            thinned.replace(samples.steps, samples.records, samples.latest, samples.latest_step)
            self.version += 1

    def _samples(self, run: str) -> list[Samples]:
        with self._lock:
            kept = self._runs.get(run)
            if kept is None:
                return []
            both = ((SampleKind.GRADIENTS, kept.gradients), (SampleKind.ACTIVATIONS, kept.activations))
            return [Samples.of(run, kind, thinned) for kind, thinned in both if thinned.latest is not None]

    def _forget(self, run: str) -> None:
        del self._runs[run]
        self._manifests.pop(run, None)
        self._marks = deque((mark for mark in self._marks if mark.run != run), maxlen=MAX_OUTCOMES)

    def _keep(self, entry: Entry) -> None:
        self.version += 1
        if self._store is not None:
            self._store.put(entry)

    def _sync(self) -> None:
        """Not under the lock: the writer may need it to come to an end."""
        if self._store is not None:
            self._store.sync()

    def _latest(self, run: str, look: Callable[[RunRecord], tuple[T | None, int]]) -> tuple[T | None, int]:
        with self._lock:
            for name, last in reversed(self.lineage(run)):
                record, step = look(self._runs[name])
                if record is not None and (last is None or step <= last):
                    return record, step
            return None, 0


def _run_view(kept: RunRecord, max_points: int) -> RunView:
    def points(series: Series) -> Points:
        curve = kept.curves.get(series)
        return curve.points(max_points) if curve is not None else NO_POINTS

    metrics = tuple(
        (series.text, curve.last_value) for series, curve in kept.curves.items() if series.signal is Signal.METRIC
    )
    return RunView(
        run=kept.run,
        train=points(TRAIN_LOSS),
        smooth=kept.smooth.curve.points(max_points),
        val=points(VAL_LOSS),
        metrics=metrics,
        steps=kept.last_step - kept.run.step,
    )
