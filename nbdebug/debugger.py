"""Debugger: the composition root. Puts session, probes, journal and dashboard together; owns nothing global."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from nbdebug import debugger_manifest, debugger_places, debugger_probes
from nbdebug.dashboard.dashboard import Dashboard
from nbdebug.debugger_diagnose import Diagnosing
from nbdebug.debugger_finder import RateFinding
from nbdebug.debugger_forecast import Forecasting
from nbdebug.debugger_keeping import Keeping
from nbdebug.debugger_knobs import knob_states
from nbdebug.debugger_own import Owning
from nbdebug.debugger_refit import Refitting
from nbdebug.debugger_sample_watch import SampleWatch
from nbdebug.debugger_samples import SampleWatching
from nbdebug.debugger_search import Searching
from nbdebug.debugger_stops import Current, Investigator, Stopping, reader_of_conditions
from nbdebug.journal.journal import Journal
from nbdebug.probes import presets
from nbdebug.probes.governor import Governor
from nbdebug.probes.instruments import Instruments
from nbdebug.records.commands import (
    ApplyRemedy,
    Command,
    Compare,
    FindLr,
    Foretell,
    Outcome,
    RunPreflight,
    Search,
    TryRemedy,
)
from nbdebug.records.cost import Cost
from nbdebug.records.errors import ClosedError, collect
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.layers import Unseen
from nbdebug.records.status import KnobStates, Status
from nbdebug.records.view import Focus, View
from nbdebug.training.arguments import model_mistakes
from nbdebug.training.initialization import redrawable
from nbdebug.training.modules import named_modules
from nbdebug.training.session import Session
from nbdebug.training.shelf import MEMORY_BYTES, Shelf
from nbdebug.training.trainer import Trainer

LOG = logging.getLogger("nbdebug")


class Debugger(Diagnosing, Keeping, Stopping, Refitting, Owning, Searching, RateFinding, Forecasting, SampleWatching):
    """A debugger for one training run: displays as a live dashboard, and does all of it by method too.

    Training runs on a thread of its own; all methods may be called from any other thread. Changes are applied between
    two steps.

    Args:
        model: a ``torch.nn.Module``, or a mapping of them (a GAN).
        trainer: how to train it.
        budget: share of step time that watching may take; ``None`` measures everything at every step.
        probes: what is measured: ``"light"`` (gradients, weights and updates in numbers, time), ``"normal"`` (with
            activations, dead and saturated units, data, histograms), ``"deep"`` (everything), or a list of names.
        layers: of which layers, by name or pattern such as ``"blocks.*"``, or several; all without it.
        journal: where everything is written down: ``True`` for ``.nbdebug/journal.sqlite`` in the working folder (or
            what the environment variable ``NBDEBUG_JOURNAL`` says), a file or folder, ``None`` for memory only.
        snapshot_bytes: how much memory snapshots may take, 1 GiB by default; 0 keeps all in files.
        snapshot_folder: where snapshots go that have no room in memory; without it the oldest are thinned instead.
        checks: whether the first steps are looked at for what is wrong with the program; see :meth:`preflight`.
        samples: whether some training samples are watched as training goes; see :meth:`watch_samples`.

    Raises:
        ConfigurationError: lists all that can't work with this model and trainer.
    """

    def __init__(
        self,
        model: nn.Module | Mapping[str, nn.Module],
        trainer: Trainer,
        *,
        budget: float | None = 0.05,
        probes: str | Collection[str] = "normal",
        layers: str | Collection[str] | None = None,
        journal: str | os.PathLike[str] | bool | None = True,
        snapshot_bytes: int = MEMORY_BYTES,
        snapshot_folder: str | os.PathLike[str] | None = None,
        checks: bool = True,
        samples: bool = True,
    ) -> None:
        mistakes = model_mistakes(model, trainer, budget)
        mistakes += debugger_places.mistakes(snapshot_bytes, snapshot_folder) + presets.probe_mistakes(probes)
        mistakes += [] if mistakes else presets.layer_mistakes(layers, named_modules(model))
        if mistakes:
            raise collect(mistakes)
        store, trouble = debugger_places.open_store(journal, self._report_journal_trouble)
        written = Journal(store)
        self._governor = Governor(budget)
        self._folder = debugger_places.SnapshotFolder(snapshot_folder, store)
        shelf = Shelf(
            snapshot_bytes,
            folder=self._folder.make,
            spill=snapshot_folder is not None,
            complain=lambda why: self._session.course.complain(why),
        )
        describe = debugger_manifest.writer(model, trainer, lambda: self._session.knobs)
        self._instruments = Instruments(
            self._report_broken_probe, debugger_probes.module_probes, probes=probes, layers=layers
        )
        understand = reader_of_conditions(model, trainer)
        session = Session(
            model, trainer, written, self._instruments, self._governor, shelf, describe, Investigator(), understand,
            self._onlooker(trainer, checks=checks),
        )  # fmt: skip
        super().__init__(model, session, written)
        self._sample_watch = SampleWatch(session, written, self._governor, by_itself=samples)
        session.samples = self._sample_watch
        self._journal.begin_run(self._session.timeline.runs[self._session.timeline.current])
        self.current = Current(session)
        self._init_layers = redrawable(model)
        self._dashboard = Dashboard(self._view, self._post)
        if trouble:
            self._report_journal_trouble(trouble)

    def close(self) -> None:
        """End training, take all hooks off, close the dashboard. The model is a plain model again."""
        self._session.close()
        self._folder.remove_if_empty()
        self._dashboard.close()
        self._journal.close()

    # -- looking ------------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """State, progress, speed and what watching costs."""
        return self._session.status()

    @property
    def cost(self) -> Cost:
        """What watching costs, as measured; prints in words."""
        samples = max(self._governor.samples, 1)
        probes = tuple((name, spent / samples) for name, spent in list(self._instruments.costs.items()))
        course, passes = self._session.course, self._sample_watch.share
        return self._governor.cost(probes, course.share, self._instruments.size_bytes, passes)

    @property
    def unseen(self) -> tuple[Unseen, ...]:
        """What can't be looked at, layer by layer, and why; as far as it is known after the steps sampled so far."""
        return self._journal.unseen(self._session.timeline.current)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of every command, oldest first."""
        return self._journal.outcomes

    @property
    def journal_path(self) -> Path | None:
        """The file in which everything is written down, if there is one; ``Journal.open`` reads it anywhere."""
        return self._journal.path

    def __repr__(self) -> str:
        status = self.status
        return f"<Debugger {status.state}: run {status.run!r}, epoch {status.epoch}, step {status.step}>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self._displayed = True
        return self._dashboard.mimebundle(**options)

    # -- inside -------------------------------------------------------------------------------------------------

    def _post(self, command: Command) -> None:
        """What the dashboard asks for; its refusals show as outcomes."""
        try:
            if isinstance(command, Compare):
                self._compare_aside(command)
            elif isinstance(command, TryRemedy | ApplyRemedy):
                self._remedy_aside(command)
            elif isinstance(command, RunPreflight):
                self._preflight_aside(command)
            elif isinstance(command, FindLr):
                self._find_lr_aside(command)
            elif isinstance(command, Foretell):
                self._foretell_aside(command)
            elif isinstance(command, Search):
                self._search_aside(command)
            else:
                self._session.post(command)
        except ClosedError as error:
            LOG.warning("%s", error)

    def _compare_aside(self, command: Compare) -> None:
        """A comparison asked for on the dashboard: on a thread of its own, since it gives many commands and waits."""

        def compare() -> None:
            session = self._session
            try:
                made = self._comparer.compare(self.compare_cost(command.run, seeds=command.seeds))
                text, ok = made.sentence, True
            except Exception as error:  # the user's code may raise anything; the thread is nobody's who could hear it
                text, ok = str(error), False
            self._journal.record_outcome(Outcome(command, session.timeline.current, session.loop.step, ok, text))

        threading.Thread(target=compare, name="nbdebug comparison", daemon=True).start()

    def _report_broken_probe(self, probe: str, traceback: str) -> None:
        status = self._session.status()
        why = f"Measuring {probe} raised an error on this model and was switched off. Training is not affected."
        title = f"Watching {probe} is off"
        self._journal.record_finding(
            Finding(Cause.WATCHING_DISABLED, Severity.WARNING, status.run, status.step, title, why, traceback)
        )

    def _view(self, max_points: int, focus: Focus | None = None) -> View:
        """One look at everything, for the dashboard. Any thread."""
        status = self._session.status()
        return View(
            status=status,
            knobs=self._knob_states(),
            runs=self._journal.run_views(max_points),
            marks=self._journal.marks,
            layers=self._journal.layers_view(status.run, focus),
            findings=self.findings[:50],
            outcomes=self._journal.outcomes[-20:],
            rewindable=self._session.course.rewindable(self._journal.snapshots),
            snapshots=self._journal.snapshots,
            comparison=next(reversed(self._journal.comparisons), None),
            cost=self.cost,
            breakpoints=self._session.breaks.told,
            stop=self._session.halts.stop,
            panels=tuple(self._session.own.panels.values()),
            lr_curve=self.lr_curve,
            report=self.report,
            search=next(reversed(self._journal.searches), None),
            forecast=self._latest_forecast(),
            search_options=self._search_options(),
            courses=self.courses,
            proofs=self._journal.proofs,
            trials=self._trials(),
            trial=self._trial,
            samples=self.samples,
        )

    def _knob_states(self) -> KnobStates:
        return knob_states(self._session, self._init_layers)

    def _report_journal_trouble(self, why: str) -> None:
        status = self._session.status()
        text = f"{why} Training goes on, and everything is kept in memory as before."
        title = "The journal is not written to disk"
        self._journal.record_finding(Finding(Cause.JOURNAL, Severity.WARNING, status.run, status.step, title, text))
