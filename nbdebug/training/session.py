"""Session: one training thread and its state. Everything that changes training passes through its mailbox.

The thread is started by the first command and sleeps while there is nothing to do. Public methods may be called from
any thread; what they ask for happens on the training thread, at safe points, between steps.
"""

from __future__ import annotations

import atexit
import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbdebug.records.commands import Command, Outcome
from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.status import State, Status
from nbdebug.training import snapshots
from nbdebug.training.control import Controller
from nbdebug.training.failure import Failure
from nbdebug.training.knobs import Knobs
from nbdebug.training.loop import Loop
from nbdebug.training.mailbox import Mailbox, Ticket
from nbdebug.training.modules import Model, modes, named_modules, roots
from nbdebug.training.rng import OwnRandomState
from nbdebug.training.seams import Pacer, Recorder, Watcher
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.stepper import Stepper, taking_turn
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.timeline import Timeline
from nbdebug.training.trainer import Trainer

CLOSE_TIMEOUT_S = 30.0
EXIT_TIMEOUT_S = 10.0
CLOSED = "closed before it could be applied"


@dataclass
class Goal:
    """Where a run ends, in finished epochs or steps taken; neither means never. ``stride`` counts single steps."""

    epoch: int | None = None
    step: int | None = None
    stride: int | None = None


class Session:
    """Trains one model, one command at a time.

    ``state`` is one of idle, running, paused, stopping, failed. ``failure`` holds what the user's code raised.
    """

    def __init__(self, model: Model, trainer: Trainer, recorder: Recorder, watcher: Watcher, pacer: Pacer) -> None:
        self.model = model
        self.trainer = trainer
        self.recorder = recorder
        self.watcher = watcher
        self.pacer = pacer
        self.knobs = Knobs(model, trainer)
        self.random = OwnRandomState()
        self.loop = Loop(model, trainer, lambda: taking_turn(self.random))
        self.stepper = Stepper(
            self.loop, self.knobs, watcher, pacer, recorder, busy=lambda: self.state is State.RUNNING
        )
        self.timeline = Timeline()
        self.goal = Goal()
        self.state = State.IDLE
        self.failure: Failure | None = None
        self.message = ""
        self.paused_by_itself = False
        self._controller = Controller(self)
        self._mailbox = Mailbox()
        self._changed = threading.Condition()
        self._context = ThreadContext.capture()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._loss_was_finite = True
        self._warned = False
        self._seconds_per_step = 0.0
        self._paced = 0
        self._unregister: Callable[[], None] = lambda: None

    # -- any thread ---------------------------------------------------------------------------------------------

    def post(self, command: Command) -> Ticket:
        """Leave a command for the next safe point; returns at once."""
        ticket = self._mailbox.post(command)
        self._ensure_thread()
        return ticket

    def prepare(self) -> None:
        """Before a start: take over the caller's torch context, and a seed just set."""
        if self.state is not State.RUNNING:
            self._context = ThreadContext.capture()
            self.random.adopt_fresh_seed()

    def wait(self, until: Callable[[State], bool], timeout_s: float | None = None) -> bool:
        """Block until the state satisfies ``until``; false when the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: until(self.state) or self._mailbox.closed, timeout_s)

    def on_training_thread(self) -> bool:
        """Whether the caller is the training thread itself, as a user's step is."""
        return threading.current_thread() is self._thread

    def status(self) -> Status:
        """Where things stand."""
        goal, loop = self.goal, self.loop
        return Status(
            state=self.state,
            run=self.timeline.current,
            epoch=loop.epoch,
            batch=loop.cursor.batch,
            batches=loop.cursor.batches,
            step=loop.step,
            goal_epoch=goal.epoch,
            goal_step=goal.step,
            steps_per_s=1 / self._seconds_per_step if self._seconds_per_step else 0.0,
            remaining_s=self._remaining_s(),
            watching=self.pacer.share,
            message=self.message,
            stepping=goal.stride is not None and goal.stride <= 1 and self.state is State.RUNNING,
        )

    def close(self) -> None:
        """End the thread and take all hooks off; the model is a plain model again. Safe to call twice."""
        self._end_thread(CLOSE_TIMEOUT_S)
        self.stepper.hooks.detach()
        self._unregister()
        if self.failure is not None:
            self.failure.let_go()
        with self._changed:
            self._changed.notify_all()

    def _end_thread(self, timeout_s: float) -> bool:
        """Ask the thread to end after its step; whether it did within the time."""
        self._mailbox.close()
        thread = self._thread
        if thread is not None and not self.on_training_thread():
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    # -- training thread ----------------------------------------------------------------------------------------

    def become(self, state: State, message: str = "") -> None:
        """Change state and tell whoever waits."""
        with self._changed:
            self.state = state
            self.message = message
            self._changed.notify_all()

    def begin(self) -> None:
        """Before training goes on: look at the model anew, and keep the very first state."""
        self._refuse_a_second_master()
        self._context.apply()
        self.failure = None
        self.paused_by_itself = False
        self.pacer.begin()
        self.knobs.refresh()
        self.watcher.watch(named_modules(self.model))
        if self.timeline.start is None:
            if self.trainer.device is not None:
                for root in roots(self.model).values():
                    root.to(self.trainer.device)
            self._wake_from_evaluation()
            self.timeline.keep(self.snapshot())

    def snapshot(self) -> Snapshot:
        """The present state, at a safe point."""
        with taking_turn(self.random):
            return snapshots.capture(
                self.model,
                self.trainer,
                self.knobs,
                self.loop.cursor,
                run=self.timeline.current,
                step=self.loop.step,
                epoch=self.loop.epoch,
                epoch_losses=tuple(self.loop.epoch_losses),
            )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, at a safe point."""
        with taking_turn(self.random):
            snapshots.restore(snapshot, self.model, self.trainer, self.knobs, self.loop.cursor)
        self.loop.step, self.loop.epoch = snapshot.step, snapshot.epoch
        self.loop.epoch_losses = list(snapshot.epoch_losses)
        self._loss_was_finite = True

    def _ensure_thread(self) -> None:
        with self._starting:
            if self._mailbox.closed:
                self._refuse_the_rest()
            elif self._thread is None:
                self._start_thread()

    def _start_thread(self) -> None:
        self.stepper.hooks.attach()
        self._unregister = _close_at_exit(self)
        self._thread = threading.Thread(target=self._main, name="nbdebug training", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        _leave_interrupts_to_the_main_thread()
        while not self._mailbox.closed:
            while (ticket := self._mailbox.take(wait=self.state is not State.RUNNING)) is not None:
                self._apply(ticket)
            if self.state is State.RUNNING and not self._mailbox.closed:
                self._advance()
        self._refuse_the_rest()
        self.loop.cursor.drop_iterator()

    def _refuse_the_rest(self) -> None:
        while (ticket := self._mailbox.take(wait=False)) is not None:
            ticket.settle(Outcome(ticket.command, self.timeline.current, self.loop.step, False, CLOSED))

    def _apply(self, ticket: Ticket) -> None:
        outcome = self._controller.apply(ticket.command)
        self.recorder.record_outcome(outcome)
        ticket.settle(outcome)

    def _advance(self) -> None:
        began = time.perf_counter()
        try:
            progress = self.stepper.advance(self.timeline.current, self.random)
            if progress.epoch_over:
                self._finish_epoch()
        except BaseException as error:  # the user's code may raise anything; it ends the run, not the thread
            self._fail(error)
            return
        if progress.stepped:
            self._keep_pace(time.perf_counter() - began)
            self._mind_the_loss(progress.loss)
        self._mind_the_goal(stepped=progress.stepped)

    def _finish_epoch(self) -> None:
        evaluation = self.loop.finish_epoch(aborted=lambda: self._mailbox.closed)
        if self._mailbox.closed:
            return
        if evaluation is not None:
            self.stepper.record_evaluation(self.timeline.current, evaluation)
        self.timeline.keep(self.snapshot())

    def _mind_the_goal(self, *, stepped: bool) -> None:
        goal = self.goal
        if goal.stride is not None and stepped:
            goal.stride -= 1
        if self.state is not State.RUNNING:
            return
        if self.goal_reached():
            self.become(State.IDLE, "finished")
        elif goal.stride == 0:
            goal.stride = None
            self.become(State.PAUSED)

    def warn_of_persistent_workers(self) -> None:
        """Once: what can't be set back when going back."""
        loaders = (self.trainer.train_loader, self.trainer.val_loader)
        if self._warned or not any(getattr(loader, "persistent_workers", False) for loader in loaders):
            return
        self._warned = True
        self._find(
            Cause.NOT_REPRODUCIBLE,
            Severity.WARNING,
            "Reruns are not exact",
            "A loader has persistent_workers=True. Persistent workers keep random states that can't be set back, so a "
            "rerun starts new ones and may differ from the first time; without the option it is exact.",
        )

    def goal_reached(self) -> bool:
        """Whether the run has come to its end."""
        goal, loop = self.goal, self.loop
        epochs_done = goal.epoch is not None and loop.epoch >= goal.epoch
        return epochs_done or (goal.step is not None and loop.step >= goal.step)

    def _mind_the_loss(self, loss: float) -> None:
        finite = math.isfinite(loss)
        if not finite and self._loss_was_finite:
            word = "NaN" if math.isnan(loss) else "infinite"
            self._find(
                Cause.NAN_LOSS,
                Severity.CRITICAL,
                f"The loss is {word}",
                f"At step {self.loop.step} the loss became {word}; training is paused. Resume to go on as it is, or "
                "rerun from the last epoch with a lower learning rate.",
            )
            self.paused_by_itself = True
            self.become(State.PAUSED, f"the loss became {word} at step {self.loop.step}")
        self._loss_was_finite = finite

    def _fail(self, error: BaseException) -> None:
        self.failure = Failure.of(error, batch=self.loop.batch, step=self.loop.step, where=self.loop.doing)
        self.goal.stride = None
        self._find(Cause.USER_ERROR, Severity.CRITICAL, self.failure.title, self.failure.why, self.failure.traceback)
        self.become(State.FAILED, self.failure.title)

    def _refuse_a_second_master(self) -> None:
        if any(other.busy() for other in self.stepper.hooks.others()):
            raise CommandError("another Debugger is training with this optimizer: pause or close that one first")

    def _wake_from_evaluation(self) -> None:
        if any(modes(self.model).values()):
            return
        for root in roots(self.model).values():
            root.train()
        self._find(
            Cause.EVAL_MODE_IN_TRAINING,
            Severity.INFO,
            "The model was in evaluation mode",
            "Every module was in evaluation mode: dropout and batch norm would not have trained. train() was called.",
        )

    def _find(self, cause: Cause, severity: Severity, title: str, why: str, detail: str = "") -> None:
        finding = Finding(cause, severity, self.timeline.current, self.loop.step, title, why, detail)
        self.recorder.record_finding(finding)

    def _keep_pace(self, seconds: float) -> None:
        self._paced += 1
        self._seconds_per_step += (seconds - self._seconds_per_step) * max(0.05, 1 / self._paced)

    def _remaining_s(self) -> float | None:
        goal, loop = self.goal, self.loop
        steps: int | None = None
        if goal.step is not None:
            steps = goal.step - loop.step
        elif goal.epoch is not None and loop.cursor.batches is not None:
            steps = (goal.epoch - loop.epoch) * loop.cursor.batches - loop.cursor.batch
        return None if steps is None else max(steps, 0) * self._seconds_per_step


def _leave_interrupts_to_the_main_thread() -> None:
    """Block SIGINT here: loader workers are forked from this thread, and an interrupted kernel would kill them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _close_at_exit(session: Session) -> Callable[[], None]:
    """Stop and join before the interpreter ends: a daemon thread inside torch would abort the process."""
    held: weakref.ref[Any] = weakref.ref(session)

    def close() -> None:
        alive = held()
        if alive is not None and not alive._end_thread(EXIT_TIMEOUT_S):
            _leave_at_once()

    atexit.register(close)
    return lambda: atexit.unregister(close)


def _leave_at_once() -> None:
    """A step that never ends can't be joined, and torch aborts a process that ends around it: end it ourselves."""
    failed = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1 if failed else 0)
