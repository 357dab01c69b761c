"""Debugger: the composition root. Puts session, probes, journal and dashboard together; owns nothing global."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

from nbdebug.dashboard.dashboard import Dashboard
from nbdebug.dashboard.routing import blocking_note
from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal
from nbdebug.probes.governor import Governor
from nbdebug.probes.instruments import Instruments
from nbdebug.records.commands import (
    Changes,
    Checkout,
    Command,
    InitScheme,
    Outcome,
    Pause,
    Reinitialize,
    Rerun,
    Resume,
    SetKnobs,
    Start,
    StartPoint,
    Step,
    Stop,
)
from nbdebug.records.errors import ClosedError, CommandError, collect
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.runs import Run
from nbdebug.records.status import State, Status
from nbdebug.records.view import View
from nbdebug.training import knobs
from nbdebug.training.arguments import (
    extent_mistakes,
    layer_mistakes,
    model_mistakes,
    scheme_mistakes,
    start_mistakes,
)
from nbdebug.training.failure import Failure
from nbdebug.training.initialization import redrawable
from nbdebug.training.modules import Model
from nbdebug.training.session import Session
from nbdebug.training.trainer import Trainer

LOG = logging.getLogger("nbdebug")


@dataclass(frozen=True)
class Current:
    """What the latest step worked on: its number, and the batch as the model got it."""

    step: int
    batch: Any


class Debugger:
    """A debugger for one training run: displays as a live dashboard, and does all of it by method too.

    Training runs on a thread of its own; all methods may be called from any other thread. Changes are applied between
    two steps.

    Args:
        model: a ``torch.nn.Module``, or a mapping of them (a GAN).
        trainer: how to train it.
        budget: share of step time that measuring may take; ``None`` measures everything at every step.

    Raises:
        ConfigurationError: lists all that can't work with this model and trainer.
    """

    def __init__(
        self, model: nn.Module | Mapping[str, nn.Module], trainer: Trainer, *, budget: float | None = 0.05
    ) -> None:
        mistakes = model_mistakes(model, trainer, budget)
        if mistakes:
            raise collect(mistakes)
        self._model: Model = model
        self._journal = Journal()
        self._governor = Governor(budget)
        instruments = Instruments(self._report_broken_probe)
        self._session = Session(model, trainer, self._journal, instruments, self._governor)
        self._journal.begin_run(self._session.timeline.runs[self._session.timeline.current])
        self._init_layers = redrawable(model)
        self._dashboard = Dashboard(self._view, self._post)
        self._displayed = False
        self.history = History(self._journal, lambda: self._session.timeline.current)

    # -- running ------------------------------------------------------------------------------------------------

    def start(self, epochs: int | None = None, *, steps: int | None = None) -> None:
        """Train in the background for so many epochs or steps, or until stopped; returns at once.

        While training runs, sets a new end: so much after the present one if that is in the same unit, else from now.
        An epoch begun counts as one.
        """
        _refuse(extent_mistakes(epochs, steps))
        self._session.prepare()
        self._ask(Start(epochs, steps))

    def run(self, epochs: int | None = None, *, steps: int | None = None) -> Run:
        """Train for so many epochs or steps and wait for the end; the dashboard stays live.

        Returns the run that the model now holds. Raises what the user's code raised. A kernel interrupt pauses. Returns
        early, with ``state`` paused, when the loss stops being finite.
        """
        _refuse(extent_mistakes(epochs, steps, needed=True))
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
        _refuse(extent_mistakes(None, count))
        self._not_from_within("step")
        self._session.prepare()
        self._ask(Step(count))
        self._pausing_on_interrupt(lambda state: state is not State.RUNNING)
        self._raise_failure()

    def stop(self) -> None:
        """End the run after the present step; a later start goes on from there."""
        self._ask(Stop())

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Training stands still inside, so the model can be used; it goes on afterwards if it was running."""
        was_running = self.state is State.RUNNING and not self._session.on_training_thread()
        if was_running:
            self._ask(Pause(for_a_look=True))
        try:
            yield
        finally:
            if was_running and self.state is State.PAUSED:
                self.resume()

    def close(self) -> None:
        """End training, take all hooks off, close the dashboard. The model is a plain model again."""
        self._session.close()
        self._dashboard.close()

    # -- changing -----------------------------------------------------------------------------------------------

    def set(self, **options: Any) -> Outcome:
        """Change knobs from the next step on; returns when done.

        Options: ``lr`` (all parameter groups in proportion, or a mapping of group to value; under a schedule a factor
        on it), ``clip_norm`` or ``clip_value`` (of each optimizer's own gradients; ``None`` turns clipping off),
        ``dropout`` (all layers, or a mapping of layer to probability).

        Raises:
            ConfigurationError: lists every unknown name and value out of range; nothing is changed then.
        """
        changes = self._parsed(
            options, [] if options else ["nothing to set: give lr, clip_norm, clip_value or dropout"]
        )
        return self._ask(SetKnobs(changes))

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
        _refuse([*scheme_mistakes(scheme, seed), *layer_mistakes(chosen, redrawable(self._model))])
        seed = secrets.randbelow(2**31) if seed is None else seed
        return self._ask(Reinitialize(InitScheme(scheme), seed, tuple(chosen or ()), keep_optimizer_state))

    def rerun(
        self, epochs: int | None = None, *, steps: int | None = None, start: str = "last_epoch", **changes: Any
    ) -> Run:
        """Go back, change something, train again on a branch, and wait for its end. The parent stays on record.

        ``start`` is ``"start"`` (the first step ever) or ``"last_epoch"`` (the start of the last epoch run);
        ``changes`` are those of :meth:`set`. Without ``epochs`` and ``steps``, trains as far as the parent came.
        """
        self._not_from_within("rerun")
        parsed = self._parsed(changes, [*extent_mistakes(epochs, steps), *start_mistakes(start)])
        self._ask(Rerun(StartPoint(start), epochs, steps, parsed))
        return self._see_through()

    def checkout(self, run: str | Run) -> Outcome:
        """Put the latest state of a run into the model: weights, optimizer, random states, place in the data."""
        return self._ask(Checkout(run.name if isinstance(run, Run) else run))

    # -- looking ------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """Idle, running, paused, stopping or failed."""
        return self._session.state

    @property
    def status(self) -> Status:
        """State, progress, speed and what watching costs."""
        return self._session.status()

    @property
    def current(self) -> Current:
        """What the latest step worked on; after an error, the batch that raised it."""
        loop = self._session.loop
        return Current(loop.step, loop.batch)

    @property
    def failure(self) -> Failure | None:
        """What the user's code raised, if it ended the run."""
        return self._session.failure

    @property
    def runs(self) -> dict[str, Run]:
        """All runs by name, oldest first; ``status.run`` names the one that the model holds."""
        return self._journal.runs

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All that the debugger had to say, oldest first."""
        return self._journal.findings

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """What became of every command, oldest first."""
        return self._journal.outcomes

    def __repr__(self) -> str:
        status = self.status
        return f"<Debugger {status.state}: run {status.run!r}, epoch {status.epoch}, step {status.step}>"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        self._displayed = True
        return self._dashboard.mimebundle(**options)

    # -- inside -------------------------------------------------------------------------------------------------

    def _parsed(self, options: Mapping[str, Any], mistakes: Sequence[str] = ()) -> Changes:
        """Knob options as changes; raises all that is wrong with them, and the mistakes known before, at once."""
        changes, unknown = knobs.parse(options)
        _refuse([*mistakes, *unknown, *self._session.knobs.mistakes(changes)])
        return changes

    def _ask(self, command: Command) -> Outcome:
        """Post a command and wait until it is applied; a refusal is raised."""
        ticket = self._session.post(command)
        if self._session.on_training_thread():
            return Outcome(command, self._session.timeline.current, self._session.loop.step, True, "after this step")
        try:
            outcome = ticket.wait()
        except KeyboardInterrupt:
            self._session.post(Pause())
            raise
        if outcome is None or not outcome.ok:
            raise CommandError(outcome.text if outcome else "closed before the command could be applied")
        return outcome

    def _not_from_within(self, method: str) -> None:
        if self._session.on_training_thread():
            raise CommandError(f"{method}() waits for training, so it can't be called from within a step or metric")

    def _post(self, command: Command) -> None:
        """What the dashboard asks for; its refusals show as outcomes."""
        if isinstance(command, Start | Step):
            self._session.prepare()
        try:
            self._session.post(command)
        except ClosedError as error:
            LOG.warning("%s", error)

    def _is_over(self, state: State) -> bool:
        by_itself = state is State.PAUSED and self._session.paused_by_itself
        return state in (State.IDLE, State.FAILED) or by_itself

    def _see_through(self) -> Run:
        """Block until the run is over; meanwhile the dashboard is drawn and its controls act."""
        if self._displayed and (note := blocking_note()):
            print(note)
        self._pausing_on_interrupt(self._is_over)
        self._raise_failure()
        if self._session.paused_by_itself:
            LOG.warning("paused: %s; resume() goes on, rerun(lr=...) tries again", self._session.message)
        return self.runs[self._session.timeline.current]

    def _pausing_on_interrupt(self, until: Any) -> None:
        try:
            self._session.wait(until)
        except KeyboardInterrupt:
            self.pause()
            raise

    def _raise_failure(self) -> None:
        if self.state is State.FAILED and self.failure is not None:
            raise self.failure.exception

    def _report_broken_probe(self, probe: str, traceback: str) -> None:
        status = self._session.status()
        why = f"Measuring {probe} raised an error on this model and was switched off. Training is not affected."
        title = f"Watching {probe} is off"
        self._journal.record_finding(
            Finding(Cause.WATCHING_DISABLED, Severity.WARNING, status.run, status.step, title, why, traceback)
        )

    def _view(self, max_points: int) -> View:
        """One look at everything, for the dashboard. Any thread."""
        status = self._session.status()
        gradients, gradients_step = self._journal.latest_gradients(status.run)
        activations, activations_step = self._journal.latest_activations(status.run)
        return View(
            status=status,
            knobs=self._session.knobs.states(self._init_layers),
            runs=self._journal.run_views(max_points),
            marks=self._journal.marks,
            gradients=gradients,
            gradients_step=gradients_step,
            activations=activations,
            activations_step=activations_step,
            findings=self._journal.findings[-50:],
            outcomes=self._journal.outcomes[-20:],
        )


def _refuse(mistakes: list[str]) -> None:
    if mistakes:
        raise collect(mistakes)
