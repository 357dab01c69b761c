"""Comparing runs and keeping them: titles, weights, scripts. By method, any thread but for what waits for training."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from nbdebug import debugger_compare, debugger_export
from nbdebug.debugger_steering import refuse_types
from nbdebug.records.commands import Command, DeleteRun, EditRun, Outcome
from nbdebug.records.comparison import Comparison
from nbdebug.records.errors import ConfigurationError
from nbdebug.records.runs import Run
from nbdebug.training import model_file
from nbdebug.training.modules import Model
from nbdebug.training.session import Session


class Keeping:
    """What can be had of runs that were made."""

    _model: Model
    _session: Session
    _comparer: debugger_compare.Comparer
    _ask: Callable[[Command], Outcome]
    _not_from_within: Callable[[str], None]
    paused: Callable[[], AbstractContextManager[Any]]

    def compare(
        self,
        one: str | Run,
        other: str | Run | None = None,
        *,
        seeds: int = 6,
        lower_is_better: Collection[str] = (),
    ) -> Comparison:
        """Whether a run did better than another, by more than luck: ``compare(branch)`` or ``compare(parent, branch)``.

        Both are rerun under so many other ``seeds`` from where they parted, with the same seeds and batches on both
        sides; :meth:`compare_cost` says beforehand what that takes. Then the model is where it was. An interrupt, or
        ``stop()``, calls it off. Metrics count as better higher unless their name says error, loss or the like, or
        ``lower_is_better`` names them.
        """
        self._not_from_within("compare")
        plan = self.compare_cost(one, other, seeds=seeds)
        print(plan)
        return self._comparer.compare(plan, lower_is_better=lower_is_better)

    def compare_cost(self, one: str | Run, other: str | Run | None = None, *, seeds: int = 6) -> debugger_compare.Plan:
        """What :meth:`compare` would do: number of reruns, steps of each, seconds in all."""
        if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 0:
            raise ConfigurationError(f"seeds={seeds!r}: give how many other seeds to rerun both sides under, such as 6")
        refuse_types(one=(one, str | Run), other=(other, str | Run | None))
        names = [run.name if isinstance(run, Run) else run for run in (one, other) if run is not None]
        timeline = self._session.timeline
        known = [timeline.named(name) for name in names]
        parent, run = debugger_compare.sides(timeline.runs, known[0], known[1] if len(known) > 1 else None)
        return self._comparer.plan(parent, run, seeds)

    def edit_run(
        self, run: str | Run, *, title: str | None = None, note: str | None = None, pinned: bool | None = None
    ) -> Outcome:
        """Give a run a title, a note or a pin (a pinned run can't be deleted)."""
        refuse_types(title=(title, str | None), note=(note, str | None), pinned=(pinned, bool | None))
        return self._ask(EditRun(run.name if isinstance(run, Run) else run, title, note, pinned))

    def delete_run(self, run: str | Run) -> Outcome:
        """Forget a run that no other came from and the model does not hold."""
        return self._ask(DeleteRun(run.name if isinstance(run, Run) else run))

    def save_model(self, path: str | os.PathLike[str]) -> Path:
        """Write the model's weights to a file: ``.safetensors``, or a ``state_dict`` for ``torch.load`` otherwise."""
        with self.paused():
            return model_file.save(self._model, Path(path))

    def export_script(self, path: str | os.PathLike[str], run: str | Run | None = None) -> Path:
        """Write a plain Python script that trains a run again without nbdebug, bit for bit, with all its changes.

        Beside it goes a file with the initial weights and random states. ``run`` is the one in the model by default.

        Raises:
            CommandError: something that was done can't be done by a script, such as an edit by hand.
        """
        with self.paused():
            return debugger_export.script(self._session, Path(path), _name_of(run))

    def export_json(self, run: str | Run | None = None) -> str:
        """The interventions of a run as JSON, from the first step on."""
        return debugger_export.interventions_json(self._session, _name_of(run))


def _name_of(run: str | Run | None) -> str | None:
    return run.name if isinstance(run, Run) else run
