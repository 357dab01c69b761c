"""Applying commands at a safe point: a short function for each, and the words for its outcome. Training thread only.

What goes back in time is :mod:`nbdebug.training.travel`'s.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nbdebug.records.commands import (
    AddBreakpoint,
    Changes,
    Checkout,
    Command,
    DeleteRun,
    DropSnapshot,
    EditBreakpoint,
    EditNorms,
    EditRun,
    Freeze,
    Outcome,
    Pause,
    PostMortem,
    Press,
    Refit,
    Reinitialize,
    RemoveBreakpoint,
    Replicate,
    Rerun,
    Resume,
    Rewind,
    SetAverage,
    SetKnobs,
    SetSchedule,
    Skip,
    SplitDecay,
    Start,
    Step,
    Stop,
    SwapActivations,
    SwapOptimizer,
    TakeSnapshot,
    Undo,
    Watch,
)
from nbdebug.records.errors import CommandError, NbdebugError, collect
from nbdebug.records.snapshots import Reason
from nbdebug.records.status import State
from nbdebug.training import snapshot_file, undoing
from nbdebug.training.travel import Traveller
from nbdebug.training.undoing import Exchange

if TYPE_CHECKING:
    from nbdebug.training.session import Session


UNCONCERNED = (  # whatever was done to the model meanwhile
    *(Pause, Stop, EditRun, DeleteRun, DropSnapshot, Watch),
    *(AddBreakpoint, EditBreakpoint, RemoveBreakpoint, PostMortem),
)


class Controller:
    """Carries commands out on a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._traveller = Traveller(session)
        self._made = ""

    def apply(self, command: Command) -> Outcome | None:
        """Carry a command out, or refuse it; never raises. ``None`` when a journey has begun and will settle it."""
        course, self._made = self._session.course, ""
        leaves_it = isinstance(command, Skip) and self._session.state is State.FAILED  # goes back to before it
        looks = self._session.at_rest and not isinstance(command, UNCONCERNED) and not leaves_it
        try:
            if looks:
                course.notice_edits()
            text = self._carry_out(command)
        except Exception as error:  # state_dict and init code of the user's may raise anything
            return self.refusal(command, error)
        finally:
            if looks and self._session.at_rest:
                course.rest()
        return None if text is None else self.success(command, text)

    def success(self, command: Command, text: str) -> Outcome:
        """The outcome of what was done."""
        current = self._session.timeline.current
        made = current if isinstance(command, Rerun | Replicate) else self._made
        return Outcome(command, current, self._session.loop.step, True, text, made)

    def refusal(self, command: Command, error: Exception) -> Outcome:
        """The outcome of what was not."""
        text = str(error) if isinstance(error, NbdebugError) else f"{type(error).__name__}: {error}"
        return Outcome(command, self._session.timeline.current, self._session.loop.step, False, text)

    def _carry_out(self, command: Command) -> str | None:
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
            case (
                SwapOptimizer()
                | SetSchedule()
                | SwapActivations()
                | Freeze()
                | EditNorms()
                | SetAverage()
                | SplitDecay()
            ):
                return self._refit(command)
            case Press(name):
                return self._session.own.press(name)
            case Undo():
                return self._undo()
            case Reinitialize():
                return self._reinitialize(command)
            case Rerun():
                return self._traveller.rerun(command)
            case Replicate():
                return self._traveller.replicate(command)
            case Rewind():
                return self._traveller.rewind(command)
            case Checkout():
                return self._traveller.checkout(command)
            case TakeSnapshot():
                return self._take_snapshot(command)
            case DropSnapshot():
                return self._drop_snapshot(command)
            case EditRun():
                return self._edit_run(command)
            case DeleteRun():
                return self._delete_run(command)
            case Watch():
                return self._session.lookout.watch(command)
            case Skip():
                return self._skip()
            case PostMortem():
                return self._session.halts.post_mortem()
            case AddBreakpoint():
                return self._add_breakpoint(command)
            case EditBreakpoint(number, enabled):
                self._session.breaks.enable(number, enabled)
                return f"breakpoint {number} {'enabled' if enabled else 'disabled'}"
            case RemoveBreakpoint(number):
                self._session.breaks.remove(number)
                return f"breakpoint {number} removed"
            case _:
                raise CommandError(f"{type(command).__name__} is nothing that a session does")

    def _start(self, command: Start) -> str:
        session = self._session
        extending = session.state is State.RUNNING
        session.set_goal(command.epochs, command.steps, extending=extending)
        if extending:
            return "goal moved"
        session.begin()
        session.become(State.RUNNING)
        return "training"

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
            session.set_goal(None, None)
        session.begin()
        session.goal.stride = (session.goal.stride or 0) + command.count
        session.become(State.RUNNING)
        return f"{command.count} step{'s' if command.count > 1 else ''}"

    def _stop(self) -> str:
        session = self._session
        if session.state is State.IDLE:
            return "nothing to stop"
        session.set_goal(None, None)
        session.become(State.IDLE, "stopped")
        return "stopped"

    def _skip(self) -> str | None:
        if not self._session.at_rest:
            raise CommandError("training is running: it has to stand at a stop for a batch to be left out")
        return self._session.halts.skip()

    def _add_breakpoint(self, command: AddBreakpoint) -> str:
        made = self._session.breaks.add(command)
        self._made = str(made.number)
        when = "before the update" if made.before_update else "after the step"
        return f"breakpoint {made.number}: {made.text}, {when}"

    def _set(self, command: SetKnobs) -> str:
        session = self._session
        session.knobs.refresh()
        mistakes = session.knobs.mistakes(command.changes)
        if mistakes:
            raise collect(mistakes)
        before = session.knobs.all_asked()
        self._turn(command)
        session.course.remember(before)
        return f"{command.changes}{session.knobs.data.note(command.changes)}"

    def _turn(self, command: SetKnobs) -> None:
        session = self._session
        session.course.make_ready(str(command.changes))
        session.knobs.apply(command.changes)
        session.course.intervene(command, str(command.changes))

    def _refit(self, command: Refit) -> str:
        session = self._session
        session.ensure_started()
        session.knobs.refresh()
        exchange = undoing.witnessed(session, command)
        text = self._exchange(command)
        session.course.remember(exchange())
        return text

    def _exchange(self, command: Refit) -> str:
        session = self._session
        session.course.make_ready(str(command))
        text = session.refitter.refit(command)
        session.course.intervene(command, str(command))
        return text

    def _undo(self) -> str:
        """The latest change of knobs or parts taken back, by a change of its own."""
        self._session.knobs.refresh()
        changes = self._session.course.undo()
        if not isinstance(changes, Changes):
            return self._take_back(changes)
        mistakes = self._session.knobs.mistakes(changes)
        if mistakes:
            raise CommandError(
                f"{changes} can't be had back: {'; '.join(mistakes)}. Undo again for the change before it"
            )
        self._turn(SetKnobs(changes))
        self._session.course.undone()
        return f"back to {changes}"

    def _take_back(self, exchange: Exchange) -> str:
        """By exchanges of its own, which can't be taken back in turn."""
        told = []
        for command in undoing.inverse(self._session, exchange):
            if isinstance(command, SetKnobs):
                self._session.knobs.refresh()
                mistakes = self._session.knobs.mistakes(command.changes)
                if mistakes:
                    raise CommandError(f"{exchange.command} is taken back but for {'; '.join(mistakes)}")
                self._turn(command)
                told.append(str(command.changes))
            else:
                told.append(self._exchange(command))
        self._session.course.undone()
        return f"back to {'; '.join(told)}"

    def _reinitialize(self, command: Reinitialize) -> str:
        session = self._session
        text = f"init {command.scheme}"
        session.course.make_ready(text)
        redrawn = session.course.reinitialize(command)
        if not redrawn.layers:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in redrawn.left)
            raise CommandError(f"nothing was re-initialised ({reasons or 'no layer has parameters'})")
        session.course.intervene(command, text)
        left = "".join(f"; left {name} ({reason})" for name, reason in redrawn.left)
        count = len(redrawn.layers)
        return f"{text}, seed {command.seed}: {count} layer{'s' if count > 1 else ''}{left}"

    def _take_snapshot(self, command: TakeSnapshot) -> str:
        session = self._session
        session.ensure_started()
        kept = session.course.take_or_refuse(Reason.REQUEST, name=command.name, pinned=True)
        self._made = kept.name
        if not command.path:
            return f"snapshot {kept.name!r}: {kept.size_bytes:,} bytes"
        about = {"name": kept.name, "run": kept.place.run, "step": kept.place.step}
        size = snapshot_file.write(kept.load(), command.path, about=about)
        return f"snapshot {kept.name!r}: {size:,} bytes in {command.path}"

    def _drop_snapshot(self, command: DropSnapshot) -> str:
        session = self._session
        session.course.shelf.drop(command.name)
        session.recorder.record_snapshots(session.course.shelf.infos())
        return f"snapshot {command.name!r} dropped"

    def _edit_run(self, command: EditRun) -> str:
        timeline = self._session.timeline
        name = timeline.named(command.run)
        title = command.title
        taken = [line.run for line in timeline.lines.values() if title and title in (line.run.name, line.run.title)]
        if any(run.name != name for run in taken):
            raise CommandError(f"{title!r} is another run's name already: choose a different one")
        run = timeline.lines[name].run
        run = replace(
            run,
            title=run.title if title is None else title,
            note=run.note if command.note is None else command.note,
            pinned=run.pinned if command.pinned is None else command.pinned,
        )
        timeline.edit(run)
        self._session.recorder.edit_run(run)
        return f"{name!r} is now {run.shown!r}" if title is not None else f"{run.shown!r} noted"

    def _delete_run(self, command: DeleteRun) -> str:
        session = self._session
        name = session.timeline.named(command.run)
        if session.timeline.lines[name].run.pinned:
            raise CommandError(f"{command.run!r} is pinned: take the pin off first")
        for gone in session.timeline.delete(name):
            session.course.shelf.drop_run(gone)
            session.recorder.delete_run(gone)
        session.recorder.record_snapshots(session.course.shelf.infos())
        return f"{command.run!r} deleted"
