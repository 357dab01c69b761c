"""Applying commands at a safe point: a short function for each, and the words for its outcome. Training thread only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.records.commands import (
    Checkout,
    Command,
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
from nbdebug.records.errors import CommandError, NbdebugError, collect
from nbdebug.records.runs import Mark
from nbdebug.records.status import State
from nbdebug.training import initialization
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.stepper import taking_turn

if TYPE_CHECKING:
    from nbdebug.training.session import Session


class Controller:
    """Carries commands out on a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def apply(self, command: Command) -> Outcome:
        """Carry a command out, or refuse it; never raises."""
        session = self._session
        try:
            text = self._carry_out(command)
            ok = True
        except NbdebugError as error:
            text, ok = str(error), False
        except Exception as error:  # state_dict and init code of the user's may raise anything
            text, ok = f"{type(error).__name__}: {error}", False
        return Outcome(command, session.timeline.current, session.loop.step, ok, text)

    def _carry_out(self, command: Command) -> str:
        match command:
            case Start():
                return self._start(command)
            case Pause():
                return self._pause(command)
            case Resume():
                return self._resume()
            case Step():
                return self._step(command)
            case Stop():
                return self._stop()
            case SetKnobs():
                return self._set(command)
            case Reinitialize():
                return self._reinitialize(command)
            case Rerun():
                return self._rerun(command)
            case Checkout():
                return self._checkout(command)
            case _:
                raise CommandError(f"{type(command).__name__} is not known here")

    def _start(self, command: Start) -> str:
        session = self._session
        extending = session.state is State.RUNNING
        self._set_goal(command.epochs, command.steps, extending=extending)
        if extending:
            return "goal moved"
        session.begin()
        session.become(State.RUNNING)
        return "training"

    def _set_goal(self, epochs: int | None, steps: int | None, *, extending: bool = False) -> None:
        goal, loop = self._session.goal, self._session.loop
        epoch_base = goal.epoch if extending and goal.epoch is not None else loop.epoch
        step_base = goal.step if extending and goal.step is not None else loop.step
        goal.epoch = None if epochs is None else epoch_base + epochs
        goal.step = None if steps is None else step_base + steps
        goal.stride = None

    def _pause(self, command: Pause) -> str:
        session = self._session
        if session.state is not State.RUNNING:
            return f"nothing to pause: {session.state}"
        if not command.for_a_look:
            session.goal.stride = None
        session.paused_by_itself = False
        session.become(State.PAUSED)
        return "paused"

    def _resume(self) -> str:
        session = self._session
        if session.state is not State.PAUSED:
            return f"nothing to resume: {session.state}"
        session.begin()
        if session.goal_reached():
            session.become(State.IDLE, "finished")
            return "nothing left to do"
        session.become(State.RUNNING)
        return "resumed"

    def _step(self, command: Step) -> str:
        session = self._session
        if session.state is State.RUNNING and session.goal.stride is None:
            raise CommandError("training is running: pause it first, then step")
        if session.state is not State.PAUSED:
            self._set_goal(None, None)
        session.begin()
        session.goal.stride = (session.goal.stride or 0) + command.count
        session.become(State.RUNNING)
        return f"{command.count} step{'s' if command.count > 1 else ''}"

    def _stop(self) -> str:
        session = self._session
        if session.state is State.IDLE:
            return "nothing to stop"
        self._set_goal(None, None)
        session.become(State.IDLE, "stopped")
        return "stopped"

    def _set(self, command: SetKnobs) -> str:
        session = self._session
        session.knobs.refresh()
        mistakes = session.knobs.mistakes(command.changes)
        if mistakes:
            raise collect(mistakes)
        session.knobs.apply(command.changes)
        self._mark(str(command.changes))
        return str(command.changes)

    def _reinitialize(self, command: Reinitialize) -> str:
        session = self._session
        with taking_turn(session.random):
            redrawn = initialization.reinitialize(session.model, command.scheme, command.seed, command.layers)
        if not redrawn.layers:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in redrawn.left)
            raise CommandError(f"nothing was re-initialised ({reasons or 'no layer has parameters'})")
        if not command.keep_optimizer_state:
            for optimizer in session.trainer.optimizers.values():
                _forget(optimizer, redrawn.parameters)
        self._mark(f"init {command.scheme}")
        left = "".join(f"; left {name} ({reason})" for name, reason in redrawn.left)
        count = len(redrawn.layers)
        return f"init {command.scheme}, seed {command.seed}: {count} layer{'s' if count > 1 else ''}{left}"

    def _rerun(self, command: Rerun) -> str:
        session = self._session
        start = session.timeline.find(StartPoint(command.start), session.loop.step)
        session.knobs.refresh()
        mistakes = session.knobs.mistakes(command.changes)
        if mistakes:
            raise collect(mistakes)
        session.warn_of_persistent_workers()
        present = session.knobs.all_asked()
        epochs, steps = command.epochs, command.steps
        if epochs is None and steps is None:
            steps = session.loop.step - start.step
        self._go_to(start)
        changes = session.knobs.difference(present) if command.keep_knobs else command.changes
        run = session.timeline.branch(start, str(changes))
        session.recorder.begin_run(run)
        session.knobs.apply(changes)
        self._mark(str(changes) or "rerun")
        self._set_goal(epochs, steps)
        session.begin()
        session.become(State.RUNNING)
        return f"{run.name!r} from step {run.step} of {run.parent!r}"

    def _checkout(self, command: Checkout) -> str:
        session = self._session
        if command.run not in session.timeline.runs:
            raise CommandError(f"no run {command.run!r}: there are {', '.join(map(repr, session.timeline.runs))}")
        if command.run == session.timeline.current:
            return f"the model holds {command.run!r} already"
        self._go_to(session.timeline.tip(command.run))
        session.timeline.current = command.run
        self._set_goal(None, None)
        session.become(State.IDLE, f"checked out {command.run}")
        return f"the model holds {command.run!r} at step {session.loop.step}"

    def _go_to(self, snapshot: Snapshot) -> None:
        """Leave the current run for a snapshot; if that fails half-way, the model is put back where it was."""
        session = self._session
        tip = session.snapshot()
        try:
            session.restore(snapshot)
        except CommandError:
            raise
        except Exception as error:  # state_dict code of the user's, a loader that no longer has its batches
            session.restore(tip)
            raise CommandError(f"could not go back, nothing is changed: {type(error).__name__}: {error}") from error
        session.timeline.leave(tip)

    def _mark(self, text: str) -> None:
        session = self._session
        session.recorder.mark(Mark(session.timeline.current, session.loop.step, text))


def _forget(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Clear an optimizer's state of these parameters; LBFGS keeps that of all under its first one."""
    redrawn = set(parameters)
    held = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    if isinstance(optimizer, torch.optim.LBFGS) and held & redrawn:
        optimizer.state.clear()
    for parameter in redrawn:
        optimizer.state.pop(parameter, None)
