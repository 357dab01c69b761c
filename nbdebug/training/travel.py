"""Going back in time: reruns, rewinds, checkouts. Each finds the place, the snapshot before it, and sets out.

Training thread only. Where steps have to be repeated on the way, the session does so between commands (see
:mod:`nbdebug.training.journey`), and the rest of the command is done on arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from nbdebug.records.commands import Changes, Checkout, Reinitialize, Replicate, Rerun, Rewind, SetKnobs, StartPoint
from nbdebug.records.errors import CommandError, FileFormatError, collect
from nbdebug.records.runs import Intervention, Mark, Reseed, RunKind
from nbdebug.records.snapshots import Reason
from nbdebug.records.status import State
from nbdebug.training import snapshot_file, snapshots
from nbdebug.training.journey import Journey
from nbdebug.training.timeline import Place

if TYPE_CHECKING:
    from nbdebug.training.session import Session


class Traveller:
    """Commands that go back, on a session. Each returns its outcome's text, or ``None`` when it will come later."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def rerun(self, command: Rerun) -> str | None:
        """Back to a start, changes made, training on a branch."""
        session = self._session
        place = self._start_of(command.start)
        self._refuse_mistakes(command.changes)
        present = session.knobs.all_asked()
        epochs, steps = command.epochs, command.steps
        if epochs is None and steps is None:
            tip = session.timeline.lines[session.timeline.current].tip
            steps = max(tip.step, session.loop.step) - place.step
            if steps < 1:
                raise CommandError("say how long: rerun(epochs=1) or rerun(steps=200); the start is where the model is")

        def arrive() -> str:
            changes = session.knobs.difference(present) if command.keep_knobs else command.changes
            if not (changes == Changes() and self._is_fresh_branch() and command.seed is None):
                self._branch(changes, command.seed)
            session.set_goal(epochs, steps)
            session.begin()
            session.become(State.RUNNING)
            run = session.timeline.runs[session.timeline.current]
            return f"{run.shown!r} from step {run.step:,} of {run.parent!r}"

        return self._go(place, arrive)

    def replicate(self, command: Replicate) -> str | None:
        """The course of one of two runs again, from where they parted, unrecorded as a run of its own kind."""
        session, timeline = self._session, self._session.timeline
        place, course = timeline.parting(*command.runs, command.follow)
        if command.seed is not None:
            course = [_drawn_anew(made, command.seed) for made in course if not isinstance(made.change, Reseed)]

        def arrive() -> str:
            session.course.branch(f"{command.follow} again", kind=RunKind.NOISE, seed=command.seed)
            if command.seed is not None:
                session.course.reseed(command.seed)
            session.follow(course)
            session.set_goal(None, command.last_step - session.loop.step)
            session.begin()
            session.become(State.RUNNING)
            return f"{command.follow!r} again, up to step {command.last_step:,}"

        return self._go(place, arrive)

    def rewind(self, command: Rewind) -> str | None:
        """Back to a step, and pause there."""
        session = self._session
        place = session.timeline.at_step(command.step)
        self._refuse_mistakes(command.changes)
        start = session.course.way_to(place)

        def arrive() -> str:
            session.become(State.PAUSED)
            if command.changes:
                self._branch(command.changes, None)
            steps = place.step - start.place.step
            way = f", {steps:,} step{'s' if steps > 1 else ''} repeated" if steps else ""
            return f"at step {session.loop.step:,} of {session.timeline.current!r}{way}; {self._knobs_in_force()}"

        return self._go(place, arrive)

    def checkout(self, command: Checkout) -> str | None:
        """The end of a run, a snapshot, or a file."""
        session = self._session
        if command.path:
            return self._open(command.path)
        place = self._place_of(command)
        if place == session.timeline.here:
            if session.state is State.FAILED:
                session.become(State.IDLE, f"checked out {session.timeline.runs[place.run].shown}")
            return f"the model holds {place.run!r} at step {place.step:,} already"

        def arrive() -> str:
            session.set_goal(None, None)
            session.become(State.IDLE, f"checked out {session.timeline.runs[place.run].shown}")
            return f"the model holds {place.run!r} at step {session.loop.step:,}"

        return self._go(place, arrive)

    # -- inside -------------------------------------------------------------------------------------------------

    def _go(self, place: Place, arrive: Callable[[], str]) -> str | None:
        """Leave for a place; if that fails on the way, the model is put back where it was."""
        session, course = self._session, self._session.course
        if place == course.timeline.here:
            if session.state is State.RUNNING:
                session.become(State.PAUSED)
            return arrive()
        start = course.way_to(place)
        if course.timeline.runs[course.timeline.current].kind is RunKind.NOISE:
            return session.travel(Journey(session, start, place, start, arrive))  # nothing there to come back to
        tip = course.shelf.at(course.timeline.here) or course.take_or_refuse(Reason.LEFT)
        if course.shelf.nearest(course.timeline.lineage(place)) is not start:
            start = course.way_to(place)
        return session.travel(Journey(session, start, place, tip, arrive))

    def _start_of(self, start: StartPoint | int | str) -> Place:
        session = self._session
        if isinstance(start, StartPoint):
            return session.timeline.start_of(start)
        if isinstance(start, int):
            return session.timeline.at_step(start)
        return session.course.shelf.named(start).place

    def _place_of(self, command: Checkout) -> Place:
        session = self._session
        if command.snapshot:
            return session.course.shelf.named(command.snapshot).place
        return session.timeline.lines[session.timeline.named(command.run)].tip

    def _refuse_mistakes(self, changes: Changes) -> None:
        knobs = self._session.knobs
        knobs.refresh()
        mistakes = knobs.mistakes(replace(changes, options=None))  # another optimizer may be in use there
        if mistakes:
            raise collect(mistakes)

    def _is_fresh_branch(self) -> bool:
        """Whether the model stands at the very beginning of a branch made by a change, which can go on as it is."""
        return self._session.timeline.is_unstarted_branch()

    def _branch(self, changes: Changes, seed: int | None) -> None:
        """A branch with its first changes."""
        session, course = self._session, self._session.course
        mistakes = session.knobs.mistakes(changes)
        if mistakes:
            raise collect(mistakes)
        if changes and self._is_fresh_branch() and seed is None:
            session.knobs.apply(changes)
            course.intervene(SetKnobs(changes), str(changes))
            return
        run = course.branch(str(changes), seed=seed)
        if seed is not None:
            course.reseed(seed)
            course.intervene(Reseed(seed), f"seed {seed}")
        if changes:
            session.knobs.apply(changes)
            course.intervene(SetKnobs(changes), str(changes))
        elif seed is None:
            session.recorder.mark(Mark(run.name, run.step, "rerun"))

    def _knobs_in_force(self) -> str:
        """Each knob's value and where it comes from."""
        session = self._session
        knobs, origins = session.knobs, session.timeline.origins(session.timeline.here)
        values = {
            "lr": f"lr {knobs.groups[0].in_force:g}" if knobs.groups else "",
            "clip": str(Changes(clip=knobs.clip)),
        }
        if knobs.dropout is not None:
            values["dropout"] = f"dropout {knobs.dropout:g}"
        update, every = knobs.update, knobs.update.accumulation.every
        present = {
            "layer_clips": Changes(layer_clips=update.layer_clips) if update.layer_clips else None,
            "gradient_noise": Changes(gradient_noise=update.noise.std) if update.noise.std else None,
            "accumulate": Changes(accumulate=every) if every > 1 else None,
        }
        values.update({knob: str(changes) for knob, changes in present.items() if changes})
        return "in force " + ", ".join(
            f"{text} ({origins.get(knob, 'as at the start')})" for knob, text in values.items() if text
        )

    def _open(self, path: str) -> str:
        """Go on from a snapshot in a file."""
        session, course = self._session, self._session.course
        snapshot, about = snapshot_file.read(path)
        unlike = snapshots.unlike(snapshot, session.model, session.trainer)
        if unlike:
            raise CommandError(
                f"{path} holds another architecture or optimizer, nothing is changed:\n" + "\n".join(unlike)
            )
        tip = None
        if course.timeline.started:
            tip = course.shelf.at(course.timeline.here) or course.take_or_refuse(Reason.LEFT)
        before = session.snapshot() if tip is None else tip.load()
        try:
            session.restore(snapshot)
        except Exception as error:  # a loader without these batches, state_dict code of the user's
            session.restore(before)
            if isinstance(error, (CommandError, FileFormatError)):
                raise
            raise CommandError(f"could not go on from {path}, nothing is changed: {error}") from error
        run = course.plant(str(about.get("run", "file")))
        course.take(Reason.START)
        session.set_goal(None, None)
        session.become(State.IDLE, f"checked out {path}")
        return f"{run.name!r} goes on from {path}, step {session.loop.step:,}"


def _drawn_anew(made: Intervention, seed: int) -> Intervention:
    """The same change with other luck: a re-initialisation draws other weights."""
    if not isinstance(made.change, Reinitialize):
        return made
    return replace(made, change=replace(made.change, seed=(made.change.seed + seed) % 2**63))
