"""Session: one training thread and its state. Everything that changes training passes through its mailbox.

The thread is started by the first command and sleeps while there is nothing to do. Public methods may be called from
any thread; what they ask for happens on the training thread, at safe points, between steps.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nbdebug.records.commands import (
    Command,
    Pause,
    Reinitialize,
    Resume,
    SetKnobs,
    Start,
    Step,
    Stop,
    TakeSnapshot,
)
from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Finding, Severity
from nbdebug.records.frames import Frame
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Intervention, Run, RunKind
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.status import State, Status
from nbdebug.records.stops import Breakpoint, Origin
from nbdebug.training import snapshots
from nbdebug.training.averaging import Average
from nbdebug.training.breaks import Breaks, Condition
from nbdebug.training.course import Course
from nbdebug.training.early import EarlyStopping
from nbdebug.training.failure import Failure
from nbdebug.training.guard import Guard, Reason, StepStopped, What
from nbdebug.training.halts import Halts
from nbdebug.training.journey import Journey
from nbdebug.training.knobs import Knobs
from nbdebug.training.lookout import Lookout
from nbdebug.training.loop import Loop, weighted_mean
from nbdebug.training.mailbox import Errand, Reservation, Ticket
from nbdebug.training.modules import Model, modes, roots
from nbdebug.training.own import Own
from nbdebug.training.process_end import end_before_exit, leave_interrupts_to_the_main_thread
from nbdebug.training.reception import Reception
from nbdebug.training.refit import Refitter
from nbdebug.training.rng import OwnRandomState, RandomState
from nbdebug.training.seams import Examiner, Investigator, Pacer, Recorder, SampleWatcher, Watcher
from nbdebug.training.shelf import Shelf
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.stepper import Stepper
from nbdebug.training.thread_context import ThreadContext
from nbdebug.training.timeline import Timeline
from nbdebug.training.trainer import Trainer
from nbdebug.training.turn import Turns

HEEDS_SEEDS = (Start, Step, Resume, SetKnobs, Reinitialize, TakeSnapshot)
CLOSE_TIMEOUT_S = 30.0
MOST_STEPS = 1_000  # at once, where they are so short


@dataclass
class Goal:
    """Where a run ends, in finished epochs or steps taken; neither means never. ``stride`` counts single steps."""

    epoch: int | None = None
    step: int | None = None
    stride: int | None = None


class Session:
    """Trains one model, one command at a time.

    ``state`` is one of idle, running, rewinding, paused, stopping, failed. ``failure`` holds what the user's code
    raised. ``describe`` writes a run's manifest, ``understand`` reads a breakpoint's condition.
    """

    def __init__(
        self,
        model: Model,
        trainer: Trainer,
        recorder: Recorder,
        watcher: Watcher,
        pacer: Pacer,
        shelf: Shelf,
        describe: Callable[[Run], Manifest],
        investigator: Investigator,
        understand: Callable[[str], Condition],
        examiner: Examiner,
    ) -> None:
        self.model = model
        self.trainer = trainer
        self.recorder = recorder
        self.watcher = watcher
        self.pacer = pacer
        self.knobs = Knobs(model, trainer)
        self.random = OwnRandomState()
        self.turns = Turns(self.random)
        batching, accumulation = self.knobs.data.batching, self.knobs.update.accumulation
        self.loop = Loop(model, trainer, lambda: self.turns, batching, accumulation)
        self.investigator = investigator
        self.breaks = Breaks(understand, self._breakpoint_broke, optimizers=len(trainer.optimizers))
        self.halts = Halts(self)
        self.stepper = Stepper(
            self.loop,
            self.knobs,
            watcher,
            pacer,
            recorder,
            self.turns,
            Guard(model, trainer),
            self.breaks,
            examiner,
            busy=self._is_busy,
            arrived=self._loss_arrived,
            before_sample=lambda: self.lookout.mind_growth(),
            sample_hit=self._stop_late,
        )
        self.course = Course(self, shelf, describe)
        self.lookout = Lookout(self)
        self.refitter = Refitter(self)
        self.own = Own(self)
        self.early = EarlyStopping(self)
        self.samples: SampleWatcher | None = None
        self.goal = Goal()
        self.state = State.IDLE
        self.failure: Failure | None = None
        self.message = ""
        self.paused_by_itself = False
        self.seconds_per_step = 0.0
        self.restore_s = 0.0
        self._following: deque[Intervention] = deque()
        self._reception = Reception(self)
        self._mailbox = self._reception.mailbox
        self._changed = threading.Condition()
        self._context = ThreadContext.capture()
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._paced = 0
        self._unregister: Callable[[], None] = lambda: None

    # -- any thread ---------------------------------------------------------------------------------------------

    @property
    def timeline(self) -> Timeline:
        """The tree of runs."""
        return self.course.timeline

    @property
    def at_rest(self) -> bool:
        """Whether the model stands still."""
        return self.state not in (State.RUNNING, State.REWINDING)

    def post(self, command: Command, holder: Reservation | None = None) -> Ticket:
        """Leave a command for the next safe point; returns at once.

        A start takes over the caller's torch context; whatever random numbers matter to, a seed that was just set.
        """
        if self.at_rest and isinstance(command, Start | Step):
            self._context = ThreadContext.capture()
        if self.at_rest and isinstance(command, HEEDS_SEEDS):
            seed = self.random.adopt_fresh_seed()
            self.course.adopted = (seed, self.random.state()) if seed is not None else self.course.adopted
        ticket = self._mailbox.post(command, holder)
        self._ensure_thread()
        return ticket

    def call(self, what: str, function: Callable[[], Any], holder: Reservation | None = None) -> Any:
        """Run something on the training thread, between two steps, and return what it gives, or raise what it raises.

        It must leave everything as it is. ``what`` says in words what it is.
        """
        if self.on_training_thread():
            return function()
        errand = Errand(what, function)
        ticket = self._mailbox.post(errand, holder)
        self._ensure_thread()
        ticket.wait()
        if errand.error is not None:
            raise errand.error
        return errand.result

    @property
    def is_called_off(self) -> bool:
        """Whether somebody asks to pause, stop or close, who is not heard while something long is run by ``call``."""
        return self._mailbox.closed or self._mailbox.asks_for(Pause, Stop)

    @property
    def is_reserved(self) -> bool:
        """Whether somebody gives it several commands now, such as a comparison."""
        return self._reception.reserved is not None

    @property
    def home(self) -> str:
        """The run that the model holds, or will hold again when whoever has reserved the session is done."""
        reserved = self._reception.reserved
        return self.timeline.current if reserved is None else reserved.home

    @contextmanager
    def reserved(self, activity: str, *, quiet: bool = False) -> Iterator[Reservation]:
        """Nobody else's commands are carried out inside, but for those to pause or stop, which set ``cancelled``.

        Raises:
            CommandError: somebody else has reserved it.
        """
        with self._changed:
            if self._reception.reserved is not None:
                raise CommandError(f"wait until this is done: {self._reception.reserved.activity}")
            self._reception.reserved = reservation = Reservation(activity, quiet=quiet, home=self.timeline.current)
        try:
            yield reservation
        finally:
            with self._changed:
                self._reception.reserved = None
                self._changed.notify_all()

    def wait(self, until: Callable[[State], bool], timeout_s: float | None = None) -> bool:
        """Block until the state satisfies ``until``; false when the time ran out."""
        with self._changed:
            return self._changed.wait_for(lambda: until(self.state) or self._mailbox.closed, timeout_s)

    def on_training_thread(self) -> bool:
        """Whether the caller is the training thread itself, as a user's step is."""
        return threading.current_thread() is self._thread

    def status(self) -> Status:
        """Where things stand."""
        goal, loop, timeline, journey = self.goal, self.loop, self.timeline, self._reception.passage.journey
        line = timeline.lines.get(timeline.current)
        return Status(
            state=self.state,
            run=timeline.current,
            epoch=loop.epoch,
            batch=loop.cursor.batch,
            batches=loop.cursor.batches,
            step=loop.step,
            goal_epoch=goal.epoch,
            goal_step=goal.step,
            steps_per_s=1 / self.seconds_per_step if self.seconds_per_step else 0.0,
            remaining_s=self._remaining_s(),
            watching=self.pacer.share,
            message=self.message,
            stepping=goal.stride is not None and goal.stride <= 1 and self.state is State.RUNNING,
            last_step=max(line.tip.step if line is not None else 0, loop.step if journey is None else 0),
            replay=journey.replay if journey is not None else None,
            activity=self._reception.reserved.activity if self._reception.reserved is not None else "",
        )

    def close(self) -> None:
        """End the thread and take all hooks off; the model is a plain model again. Safe to call twice."""
        self._end_thread(CLOSE_TIMEOUT_S)
        self.stepper.hooks.detach()
        self._unregister()
        self.course.shelf.clear_files()
        if self.failure is not None:
            self.failure.let_go()
        self.notify()

    def _end_thread(self, timeout_s: float) -> bool:
        """Ask the thread to end after its step; whether it did within the time."""
        self._mailbox.close()
        thread = self._thread
        if thread is not None and not self.on_training_thread():
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def notify(self) -> None:
        """Whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()

    # -- training thread ----------------------------------------------------------------------------------------

    def become(self, state: State, message: str = "") -> None:
        """Change state and tell whoever waits."""
        if self.state in (State.RUNNING, State.REWINDING) and state not in (State.RUNNING, State.REWINDING):
            self.come_to_rest()
            if state is not State.FAILED and self.halts.heed_late():
                return
            self.course.rest()
        with self._changed:
            self.state = state
            self.message = message
            self._changed.notify_all()

    def come_to_rest(self) -> None:
        """Between two steps, before anything else is done: all is on record, and the turn is given back."""
        try:
            self.stepper.settle()
        finally:
            self.turns.let_go()  # whatever went wrong: it is the process's, and others wait for it

    def _is_busy(self) -> bool:
        return not self.at_rest

    def _loss_arrived(self, step: int, loss: float, skipped: bool) -> None:
        """A loss came from the device, some steps late."""
        self.timeline.loss_arrived(step, loss)
        self.loop.loss_arrived(loss)
        guard = self.stepper.guard
        reason = guard.judge_loss(loss, skipped=skipped)
        if guard.accepted:
            guard.accepted = reason is not None
        elif reason is not None and self.stepper.heeds:
            self._stop_late(reason, step)

    def _stop_late(self, reason: Reason, step: int | None = None) -> None:
        """Training stops at the next safe point, for what came of an earlier step."""
        if self.halts.late is None:
            self.halts.late = (reason, self.loop.step if step is None else step)

    def _breakpoint_broke(self, told: Breakpoint, traceback: str) -> None:
        title = f"Breakpoint {told.number} was disabled"
        why = f"{told.text!r} raised an error when it was judged. Training is not affected."
        self.find(Cause.BREAKPOINT_DISABLED, Severity.WARNING, title, why, traceback)

    def begin(self) -> None:
        """Before training goes on: look at the model anew, and keep the very first state."""
        self._refuse_a_second_master()
        self._context.apply()
        self.failure = None
        self.paused_by_itself = False
        self.pacer.begin()
        self.knobs.refresh()
        self.halts.going_on()
        self.stepper.begin()
        self.lookout.look_anew()
        self.lookout.mind_edits()
        self.ensure_started()
        self.course.set_out()
        quiet = self._reception.reserved is not None and self._reception.reserved.quiet
        self.stepper.heeds = self.timeline.lines[self.timeline.current].run.kind is not RunKind.NOISE and not quiet

    @contextmanager
    def unnoticed(self) -> Iterator[None]:
        """At rest: what is written inside and put back is no edit by hand; those of before are on record."""
        self.course.notice_edits()
        try:
            yield
        finally:
            self.course.rest()

    def begin_quietly(self) -> None:
        """Before a way back that nobody asked for by a command of its own."""
        self.course.broken_off = False
        self.knobs.refresh()

    def leave_out_a_batch(self) -> None:
        """Take the next batch, and do nothing with it."""
        with self.turns:
            self.loop.cursor.take()

    def ensure_started(self) -> None:
        """Before anything is remembered: the model on its device, in a mode to train in."""
        if self.timeline.started:
            return
        if self.trainer.device is not None:
            for root in roots(self.model).values():
                root.to(self.trainer.device)
        self._wake_from_evaluation()
        self.knobs.refresh()
        self.course.set_out()
        self.course.rest()

    def set_goal(self, epochs: int | None, steps: int | None, *, extending: bool = False) -> None:
        """Where training ends: so much from here, or after the present goal."""
        goal, loop = self.goal, self.loop
        epoch_base = goal.epoch if extending and goal.epoch is not None else loop.epoch
        step_base = goal.step if extending and goal.step is not None else loop.step
        goal.epoch = None if epochs is None else epoch_base + epochs
        goal.step = None if steps is None else step_base + steps
        goal.stride = None

    @property
    def following(self) -> tuple[Intervention, ...]:
        """The changes that are still to be made."""
        return tuple(self._following)

    def follow(self, course: Iterable[Intervention]) -> None:
        """Make these changes at their steps, as training comes by."""
        self._following = deque(course)

    def snapshot(self) -> Snapshot:
        """The present state, at a safe point."""
        self.stepper.settle()
        with self.turns:
            return snapshots.capture(
                self.model,
                self.trainer,
                self.knobs,
                self.loop.cursor,
                run=self.timeline.current,
                step=self.loop.step,
                epoch=self.loop.epoch,
                epoch_losses=tuple(self.loop.epoch_losses),
                equipment=self.refitter.equipment(),
            )

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to a snapshot, at a safe point."""
        began = time.perf_counter()
        with self.turns:
            self.refitter.put_back(snapshot.equipment)
            snapshots.restore(snapshot, self.model, self.trainer, self.knobs, self.loop.cursor)
        self.loop.step, self.loop.epoch = snapshot.step, snapshot.epoch
        self.loop.epoch_losses = list(snapshot.epoch_losses)
        self._following.clear()
        self.halts.leave()
        self.course.adopted = None
        self.restore_s += (time.perf_counter() - began - self.restore_s) * (0.3 if self.restore_s else 1.0)

    def travel(self, journey: Journey) -> str | None:
        """Set out on a journey; the outcome's text, or ``None`` when it will come on arrival.

        Raises:
            CommandError: it could not begin, and nothing is changed.
        """
        return self._reception.passage.begin(journey)

    def redo(self, made: Intervention, random: RandomState | None) -> None:
        """Make an intervention again."""
        self.course.redo(made, random)

    def _ensure_thread(self) -> None:
        with self._starting:
            if self._mailbox.closed:
                self._reception.refuse_the_rest()
            elif self._thread is None:
                self._start_thread()

    def _start_thread(self) -> None:
        self.stepper.hooks.attach()
        self._unregister = end_before_exit(self, Session._end_thread)
        self._thread = threading.Thread(target=self._main, name="nbdebug training", daemon=True)
        self._thread.start()

    def _main(self) -> None:
        leave_interrupts_to_the_main_thread()
        try:
            self._serve()
        finally:
            self.come_to_rest()
        self._reception.end()
        self.loop.cursor.drop_iterator()

    def _serve(self) -> None:
        """Commands and steps, until closed."""
        while not self._mailbox.closed:
            if self.at_rest or self._mailbox.holds_any:
                self._reception.heed()
            if self._mailbox.closed:
                break
            if self.state is State.RUNNING:
                self._advance()
            elif self.state is State.REWINDING:
                self._reception.go_on()

    def _advance(self) -> None:
        began = time.perf_counter()
        try:
            self._follow()
            progress = self.stepper.advance(
                self.timeline.current, most=self._most_steps(), wanted=lambda: self._mailbox.holds_any
            )
            if progress.losses:
                seconds = time.perf_counter() - began
                self._keep_pace(seconds / len(progress.losses))
                self.course.steps_taken(progress.losses, seconds, settled=not progress.epoch_over)
            self._examine(last=progress.epoch_over or progress.error is not None)
            if progress.error is not None:
                raise progress.error
            if self.samples is not None and progress.losses and self.stepper.heeds:
                self.samples.stepped()
            stopped = progress.reason is not None or self.halts.late is not None or self.breaks.pending is not None
            if progress.epoch_over and not stopped and not self._is_due:
                stopped = self._finish_epoch()
        except StepStopped as stop:
            stop.with_traceback(None)  # its frames hold the whole step
            self._count_the_stride(len(progress.losses))
            self.halts.within(stop.reason)
            return
        except BaseException as error:  # the user's code may raise anything; it ends the run, not the thread
            self._fail(error)
            return
        self._count_the_stride(len(progress.losses))
        if not (stopped and self._stop_for(progress.reason)):
            self._mind_the_goal()

    def _stop_for(self, reason: Reason | None) -> bool:
        """Whether training stops here: for what the last step gave, what came late, or what was found."""
        pending, self.breaks.pending = self.breaks.pending, None
        if reason is not None:
            self.halts.after(reason, self.loop.step)
        elif pending is not None:
            told, title = pending
            reason = Reason(What.BREAKPOINT, breakpoint=told.number, text=f"{told.text}: {title}")
            self.halts.after(reason, self.loop.step)
        else:
            return self.halts.heed_late()
        return True

    def _most_steps(self) -> int:
        """How many steps may be taken before somebody has to look: until the goal; one where each has to be minded."""
        if self._following or self.loop.doubt:
            return 1
        goal = self.goal
        left = [MOST_STEPS]
        if goal.step is not None:
            left.append(goal.step - self.loop.step)
        if goal.stride is not None:
            left.append(goal.stride)
        if self.samples is not None and (wanted := self.samples.most_steps()) is not None:
            left.append(wanted)
        return max(1, min(left))

    @property
    def _is_due(self) -> bool:
        """Whether a change that is followed comes here."""
        loop, ahead = self.loop, self._following
        return bool(ahead) and (loop.step, loop.epoch) >= (ahead[0].step, ahead[0].epoch)

    def _follow(self) -> None:
        while self._is_due:
            self.redo(self._following.popleft(), None)

    def _finish_epoch(self) -> bool:
        """End the epoch; whether training should stop there."""
        self.come_to_rest()
        began = time.perf_counter()
        score = weighted_mean(self.loop.epoch_losses)
        evaluation = self.loop.finish_epoch(aborted=lambda: self._mailbox.closed)
        if self._mailbox.closed:
            return False
        hit = None
        if evaluation is not None:
            score = evaluation.loss
            self.stepper.record_evaluation(self.timeline.current, evaluation)
        if evaluation is not None and (average := self.refitter.average) is not None:
            self._evaluate(average)
        if self.breaks.any and self.stepper.heeds:
            values = evaluation.series if evaluation is not None else {}
            hit = self.breaks.after_epoch(self.loop.step, self.loop.epoch, values)
        self.course.epoch_finished(score, time.perf_counter() - began)
        if self.stepper.heeds:
            if self.samples is not None:
                self.samples.epoch_ended()
            self.own.epoch_ended()
            if evaluation is not None and self.early.epoch_ended(evaluation.series):
                self.early.end()
        if hit is not None:
            self._stop_late(Reason(What.BREAKPOINT, breakpoint=hit.number, text=hit.text))
        return self.halts.late is not None

    def _evaluate(self, average: Average) -> None:
        """The average of the weights on the validation data; no random number is used up by it."""
        loop, batch = self.loop, self.loop.batch
        with self.turns:
            random, generators = RandomState.capture(), loop.cursor.generator_states()
        with average.swapped(self.model):
            found = loop.validate(lambda: self._mailbox.closed)
        with self.turns:
            random.restore()
            loop.cursor.set_generators(generators)
        loop.batch = batch
        named = {"loss": found.loss, **found.metrics}
        scalars = tuple((Series(Signal.METRIC, f"{name} of the average", Split.VAL), v) for name, v in named.items())
        self.recorder.record(Frame(self.timeline.current, loop.step, loop.epoch, scalars))

    def _count_the_stride(self, steps: int) -> None:
        if self.goal.stride is not None:
            self.goal.stride -= steps

    def _mind_the_goal(self) -> None:
        goal = self.goal
        if self.state is not State.RUNNING:
            return
        if self.goal_reached():
            self._examine(last=False, rests=True)
            self.become(State.IDLE, "finished")
        elif goal.stride == 0:
            goal.stride = None
            self.become(State.PAUSED)

    def goal_reached(self) -> bool:
        """Whether the run has come to its end."""
        goal, loop = self.goal, self.loop
        epochs_done = goal.epoch is not None and loop.epoch >= goal.epoch
        return epochs_done or (goal.step is not None and loop.step >= goal.step)

    def _fail(self, error: BaseException) -> None:
        self.failure = Failure.of(error, batch=self.loop.batch, step=self.loop.step, where=self.loop.doing)
        self.goal.stride = None
        self.loop.step = self.timeline.here.step if self.timeline.started else self.loop.step
        self.course.broken_off = True
        self.find(Cause.USER_ERROR, Severity.CRITICAL, self.failure.title, self.failure.why, self.failure.traceback)
        self.become(State.FAILED, self.failure.title)

    def _refuse_a_second_master(self) -> None:
        if any(other.busy() for other in self.stepper.hooks.others()):
            raise CommandError("another Debugger is training with this optimizer: pause or close that one first")

    def _wake_from_evaluation(self) -> None:
        if any(modes(self.model).values()):
            return
        for root in roots(self.model).values():
            root.train()
        self.find(
            Cause.EVAL_MODE_IN_TRAINING,
            Severity.INFO,
            "The model was in evaluation mode",
            "Every module was in evaluation mode: dropout and batch norm would not have trained. train() was called.",
        )

    def find(
        self,
        cause: Cause,
        severity: Severity,
        title: str,
        why: str,
        detail: str = "",
        *,
        origin: Origin | None = None,
        step: int | None = None,
    ) -> None:
        """Say something about the run, as it is now, or of the given step."""
        at = self.loop.step if step is None else step
        self.recorder.record_finding(Finding(cause, severity, self.timeline.current, at, title, why, detail, origin))
        self.breaks.found(severity, title)

    def _examine(self, *, last: bool, rests: bool = False) -> None:
        """What training shows to be wrong with the program."""
        examiner, run, step = self.stepper.examiner, self.timeline.current, self.loop.step
        for finding in examiner.findings(run, step, last=last, rests=rests):
            self.recorder.record_finding(finding)
            self.breaks.found(finding.severity, finding.title)

    def _keep_pace(self, seconds: float) -> None:
        self._paced += 1
        self.seconds_per_step += (seconds - self.seconds_per_step) * max(0.05, 1 / self._paced)

    def _remaining_s(self) -> float | None:
        goal, loop = self.goal, self.loop
        steps: int | None = None
        if goal.step is not None:
            steps = goal.step - loop.step
        elif goal.epoch is not None:
            steps = loop.cursor.batches_left(goal.epoch - loop.epoch)
        return None if steps is None else max(steps, 0) * self.seconds_per_step
