"""Steering: what can be asked of a training run by method. Each becomes a command, carried out between two steps.

All methods may be called from any thread; those that wait for training not from within a step. The dashboard's
controls give the same commands.
"""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from nbdebug import debugger_compare
from nbdebug.dashboard.routing import blocking_note
from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal
from nbdebug.probes import presets
from nbdebug.records.commands import (
    Changes,
    Checkout,
    Command,
    DropSnapshot,
    InitScheme,
    Outcome,
    Pause,
    Reinitialize,
    Rerun,
    Resume,
    Rewind,
    SetKnobs,
    Start,
    StartPoint,
    Step,
    Stop,
    TakeSnapshot,
    Undo,
    Watch,
)
from nbdebug.records.errors import CommandError, collect
from nbdebug.records.runs import Run, RunKind
from nbdebug.records.snapshots import SnapshotInfo
from nbdebug.records.status import State
from nbdebug.training import knobs, model_file
from nbdebug.training.arguments import (
    budget_mistakes,
    extent_mistakes,
    layer_mistakes,
    scheme_mistakes,
    seed_mistakes,
    start_mistakes,
    step_mistakes,
)
from nbdebug.training.failure import Failure
from nbdebug.training.initialization import redrawable
from nbdebug.training.modules import Model, named_modules
from nbdebug.training.session import Session

LOG = logging.getLogger("nbdebug")
SLOW_S = 5.0
INTERRUPT_S = 10.0  # a step may take long; an interrupted cell should not


@dataclass(frozen=True, slots=True)
class RewindCost:
    """What a rewind to ``step`` takes: ``steps`` repeated from the snapshot at ``snapshot_step``, in ``seconds``."""

    step: int
    snapshot_step: int
    steps: int
    seconds: float


class Steering:
    """Gives commands to a session and waits for what becomes of them."""

    def __init__(self, model: Model, session: Session, journal: Journal) -> None:
        self._model = model
        self._session = session
        self._journal = journal
        self.history = History(journal, lambda: session.timeline.current)
        self._comparer = debugger_compare.Comparer(session, journal)
        self._displayed = False

    @property
    def state(self) -> State:
        """Idle, running, rewinding, paused, stopping or failed."""
        return self._session.state

    @property
    def failure(self) -> Failure | None:
        """What the user's code raised, if it ended the run."""
        return self._session.failure

    @property
    def runs(self) -> dict[str, Run]:
        """All runs by name, oldest first; ``status.run`` names the one that the model holds.

        Reruns that only measured noise for a comparison are left out.
        """
        return {name: run for name, run in self._journal.runs.items() if run.kind is RunKind.TRAINING}

    @property
    def snapshots(self) -> tuple[SnapshotInfo, ...]:
        """All snapshots that can be gone back to, in the order in which they were taken."""
        return self._journal.snapshots

    # -- running ------------------------------------------------------------------------------------------------

    def start(self, epochs: int | None = None, *, steps: int | None = None) -> None:
        """Train in the background for so many epochs or steps, or until stopped; returns at once.

        While training runs, sets a new end: so much after the present one if that is in the same unit, else from now.
        An epoch begun counts as one.
        """
        refuse(extent_mistakes(epochs, steps))
        self._ask(Start(epochs, steps))

    def run(self, epochs: int | None = None, *, steps: int | None = None) -> Run:
        """Train for so many epochs or steps and wait for the end; the dashboard stays live.

        Returns the run that the model now holds. Raises what the user's code raised. A kernel interrupt pauses. Returns
        early, with ``state`` paused, when the loss stops being finite.
        """
        refuse(extent_mistakes(epochs, steps, needed=True))
        self._not_from_within("run")
        self.start(epochs, steps=steps)
        return self._see_through()

    def wait(self, timeout_s: float | None = None) -> State:
        """Wait until training is over (or paused by the debugger itself); returns the state."""
        self._not_from_within("wait")
        self._session.wait(self._is_over, timeout_s)
        return self.state

    def pause(self) -> None:
        """Pause after the present step; returns when paused."""
        self._ask(Pause())

    def resume(self) -> None:
        """Go on after a pause; returns at once."""
        self._ask(Resume())

    def step(self, count: int = 1) -> None:
        """Take ``count`` steps, wait for them, and stay paused. Raises what the user's code raised."""
        refuse(extent_mistakes(None, count))
        self._not_from_within("step")
        self._ask(Step(count))
        moving, halts = (State.RUNNING, State.REWINDING), self._session.halts
        self._pausing_on_interrupt(lambda state: state not in moving and not halts.under_way)
        self._raise_failure()

    def stop(self) -> None:
        """End the run after the present step; a later start goes on from there."""
        self._ask(Stop())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Training stands still inside, so the model can be used; it goes on afterwards if it was running."""
        if not self._session.on_training_thread():
            self._session.wait(lambda state: state is not State.REWINDING)
        was_running = self.state is State.RUNNING and not self._session.on_training_thread()
        if was_running:
            self._ask(Pause(for_a_look=True))
        try:
            yield
        finally:
            if was_running and self.state is State.PAUSED:
                self.resume()

    # -- changing -----------------------------------------------------------------------------------------------

    def set(self, **options: Any) -> Outcome:
        """Change knobs from the next step on; returns when done.

        Options: ``lr`` (all parameter groups in proportion, or a mapping of group to value; under a schedule a factor
        on it), ``clip_norm`` or ``clip_value`` (of each optimizer's own gradients; ``None`` turns clipping off; a
        mapping clips layer by layer before that, by name all in a layer together, by pattern each by itself),
        ``gradient_noise`` (a standard deviation, added after clipping), ``accumulate`` (batches for each update),
        ``dropout`` (all layers, or a mapping of layer to probability), ``batch_size`` (of the training loader),
        ``label_smoothing`` (of a cross entropy), ``loss_weights`` (a mapping of the loss's parts), and those of the
        optimizer by their names in torch: ``weight_decay``, ``momentum``, ``nesterov``, ``betas`` (or ``beta1``,
        ``beta2``), ``eps`` and so on (all groups, or a mapping of group to value), and your own by their names.
        :meth:`undo` takes a change back.

        Raises:
            ConfigurationError: lists every unknown name and value out of range; nothing is changed then.
        """
        changes = self._parsed(
            options, [] if options else ["nothing to set: give lr, clip_norm, clip_value or dropout"]
        )
        return self._ask(SetKnobs(changes))

    def undo(self) -> Outcome:
        """Take the latest change of knobs or parts back, from the next step on; called again, the one before it.

        Not back in time: weights and step stay. The change is reversed by one of its own: the optimizer is swapped back
        with what was learnt meanwhile, frozen layers learn, the former schedule goes on, inserted norms come out.

        Raises:
            CommandError: nothing was changed on the way to where the model is, or there is no way back from here.
        """
        return self._ask(Undo())

    def watch(
        self,
        probes: str | Collection[str] = "normal",
        *,
        layers: str | Collection[str] | None = None,
        budget: float | None = 0.05,
    ) -> Outcome:
        """Measure something else from the next step on, as the constructor's arguments of these names say.

        Raises:
            ConfigurationError: lists every unknown preset, probe and layer; nothing is changed then.
        """
        mistakes = [*presets.probe_mistakes(probes), *presets.layer_mistakes(layers, named_modules(self._model))]
        refuse([*mistakes, *budget_mistakes(budget)])
        chosen = probes if isinstance(probes, str) else tuple(sorted(probes))
        return self._ask(Watch(chosen, presets.patterns(layers), budget))

    def reinitialize(
        self,
        scheme: str = "default",
        *,
        seed: int | None = None,
        layers: str | Sequence[str] | None = None,
        keep_optimizer_state: bool = False,
    ) -> Outcome:
        """Draw new weights by a scheme of :class:`~nbdebug.records.commands.InitScheme`, such as ``"kaiming_normal"``.

        ``layers`` limits it to some; without a ``seed``, one is drawn and told in the outcome. Biases become zero, norm
        layers are reset, frozen parameters stay. The optimizer's state of redrawn parameters is cleared unless kept.
        """
        chosen = [layers] if isinstance(layers, str) else layers
        refuse([*scheme_mistakes(scheme, seed), *layer_mistakes(chosen, redrawable(self._model))])
        seed = secrets.randbelow(2**31) if seed is None else seed
        return self._ask(Reinitialize(InitScheme(scheme), seed, tuple(chosen or ()), keep_optimizer_state))

    def rerun(
        self,
        epochs: int | None = None,
        *,
        steps: int | None = None,
        start: str | int | SnapshotInfo | os.PathLike[str] = "last_epoch",
        seed: int | None = None,
        **changes: Any,
    ) -> Run:
        """Go back, change something, train again on a branch, and wait for its end. The parent stays on record.

        ``start`` is ``"start"`` (the first step ever), ``"last_epoch"`` (the start of the last epoch run), ``"best"``
        (the epoch with the lowest validation loss), ``"here"``, the number of a step (negative: so many steps back),
        or a snapshot; ``changes`` are those of :meth:`set`; ``seed`` draws other random numbers and batches. Without
        ``epochs`` and ``steps``, trains as far as the parent came.
        """
        self._not_from_within("rerun")
        mistakes = [*extent_mistakes(epochs, steps), *start_mistakes(start, self.snapshots), *seed_mistakes(seed)]
        parsed = self._parsed(changes, mistakes, elsewhere=True)
        self._ask(Rerun(self._start_point(start), epochs, steps, parsed, seed=seed))
        return self._see_through()

    def rewind(self, step: int, **changes: Any) -> Outcome:
        """Put the model back to where it was after ``step`` steps, and pause there; negative goes so many steps back.

        The nearest snapshot before it is restored and the rest repeated exactly; :meth:`rewind_cost` says what that
        takes. An interrupt calls it off. The knobs come back as they were then, but for ``changes``; the outcome says
        which are in force and where they come from. Whatever comes next begins a branch.

        Raises:
            CommandError: no such step was recorded, or nothing leads back there any more.
        """
        self._not_from_within("rewind")
        parsed = self._parsed(changes, step_mistakes(step), elsewhere=True)
        cost = self.rewind_cost(step)
        if cost.seconds > SLOW_S:
            LOG.warning("going back to step %d: %d steps to repeat, about %.0f s", cost.step, cost.steps, cost.seconds)
        return self._ask(Rewind(cost.step, parsed))

    def rewind_cost(self, step: int) -> RewindCost:
        """What :meth:`rewind` would take, as far as is known: the snapshot's step, the steps to repeat, seconds."""
        refuse(step_mistakes(step))
        course = self._session.course
        place = course.timeline.at_step(self._session.loop.step + step if step < 0 else int(step))
        kept = course.way_to(place)
        return RewindCost(place.step, kept.place.step, max(place.step - kept.place.step, 0), course.cost_s(kept, place))

    def checkout(self, what: str | Run | SnapshotInfo | os.PathLike[str]) -> Outcome:
        """Put the latest state of a run, or a snapshot, into the model: weights, optimizer, random states, data place.

        ``what`` is a run or its name, a snapshot or its name, or the path of a file that :meth:`snapshot` wrote.

        Raises:
            CommandError: there is none of that name, or it is of another architecture (the text lists the tensors).
            FileFormatError: the file is no snapshot, or damaged.
        """
        refuse_types(what=(what, str | Run | SnapshotInfo | os.PathLike))
        if isinstance(what, SnapshotInfo):
            return self._ask(Checkout(snapshot=what.name))
        if isinstance(what, Run):
            return self._ask(Checkout(what.name))
        if isinstance(what, os.PathLike) or (what not in self._names() and what.endswith(model_file.SAFE)):
            return self._ask(Checkout(path=os.fspath(what)))
        is_snapshot = what not in self._names() and any(info.name == what for info in self.snapshots)
        return self._ask(Checkout(snapshot=what) if is_snapshot else Checkout(what))

    def snapshot(self, name: str = "", *, path: str | os.PathLike[str] | None = None) -> SnapshotInfo:
        """Keep the present state for good, and write it to a file where ``path`` is given.

        Raises:
            CommandError: no room, or something in it can't be stored (the text says what).
        """
        self._not_from_within("snapshot")
        refuse_types(name=(name, str))
        made = self._ask(TakeSnapshot(name, os.fspath(path) if path is not None else "")).made
        return next(info for info in self.snapshots if info.name == made)

    def drop_snapshot(self, name: str | SnapshotInfo) -> Outcome:
        """Let a snapshot go."""
        return self._ask(DropSnapshot(name.name if isinstance(name, SnapshotInfo) else name))

    # -- inside -------------------------------------------------------------------------------------------------

    def _parsed(self, options: Mapping[str, Any], mistakes: Sequence[str] = (), *, elsewhere: bool = False) -> Changes:
        """Knob options as changes; raises all that is wrong with them, and the mistakes known before, at once.

        ``elsewhere``: they are for another place, where another optimizer may be in use.
        """
        changes, unknown = knobs.parse(options, tuple(self._session.knobs.own))
        here = replace(changes, options=None) if elsewhere else changes
        refuse([*mistakes, *unknown, *self._session.knobs.mistakes(here)])
        return changes

    def _ask(self, command: Command) -> Outcome:
        """Post a command and wait until it is applied; a refusal is raised."""
        ticket = self._session.post(command)
        if self._session.on_training_thread():
            return Outcome(command, self._session.timeline.current, self._session.loop.step, True, "after this step")
        try:
            outcome = ticket.wait()
        except KeyboardInterrupt:
            self._session.post(Pause()).wait(INTERRUPT_S)
            raise
        if outcome is None or not outcome.ok:
            raise CommandError(outcome.text if outcome else "closed before the command could be applied")
        return outcome

    def _start_point(self, start: str | int | SnapshotInfo | os.PathLike[str]) -> StartPoint | int | str:
        """A rerun's start as a command says it; a file is read first."""
        if isinstance(start, SnapshotInfo):
            return start.name
        if isinstance(start, os.PathLike):
            self.checkout(start)
            return StartPoint.HERE
        if isinstance(start, str):
            return StartPoint(start) if start in list(StartPoint) else start
        return self._session.loop.step + int(start) if start < 0 else int(start)

    def _names(self) -> frozenset[str]:
        runs = self._session.timeline.runs.values()
        return frozenset([run.name for run in runs] + [run.title for run in runs if run.title])

    def _not_from_within(self, method: str) -> None:
        if self._session.on_training_thread():
            raise CommandError(f"{method}() waits for training, so it can't be called from within a step or metric")

    def _is_over(self, state: State) -> bool:
        by_itself = state is State.PAUSED and self._session.paused_by_itself
        return (state in (State.IDLE, State.FAILED) or by_itself) and not self._session.is_reserved

    def _see_through(self) -> Run:
        """Block until the run is over; meanwhile the dashboard is drawn and its controls act."""
        if self._displayed and (note := blocking_note()):
            print(note)
        self._pausing_on_interrupt(self._is_over)
        self._raise_failure()
        if self._session.paused_by_itself:
            LOG.warning("paused: %s; resume() goes on, rerun(lr=...) tries again", self._session.message)
        return self._session.timeline.runs[self._session.timeline.current]

    def _pausing_on_interrupt(self, until: Callable[[State], bool]) -> None:
        try:
            self._session.wait(until)
        except KeyboardInterrupt:
            self.pause()
            raise

    def _raise_failure(self) -> None:
        if self.state is State.FAILED and self.failure is not None:
            raise self.failure.exception


def refuse_types(**given: tuple[Any, Any]) -> None:
    """Refuse arguments, each given with its types, that are of another."""
    refuse(
        [
            f"{name}={value!r:.80}: give {_types_in_words(types)}"
            for name, (value, types) in given.items()
            if not isinstance(value, types)
        ]
    )


def _types_in_words(types: Any) -> str:
    words = {
        str: "a name or text",
        bool: "True or False",
        Run: "a run",
        SnapshotInfo: "a snapshot",
        os.PathLike: "a path",
    }
    return " or ".join(words.get(each, "None") for each in getattr(types, "__args__", (types,)))


def refuse(mistakes: list[str]) -> None:
    """Raise all mistakes as one error, if there are any."""
    if mistakes:
        raise collect(mistakes)
