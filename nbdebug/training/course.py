"""The course of a session: its tree of runs and the snapshots along it, kept up as training goes. Training thread only.

Here is decided when a snapshot is taken (spaced so that they cost a small share of the time), when a branch begins, and
what counts as a change from outside. Going back is :mod:`nbdebug.training.travel`'s.
"""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from nbdebug.records.commands import (
    Changes,
    EditNorms,
    Freeze,
    Reinitialize,
    SetAverage,
    SetKnobs,
    SetSchedule,
    Skip,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.errors import CommandError
from nbdebug.records.findings import Cause, Severity
from nbdebug.records.manifest import Manifest
from nbdebug.records.runs import Change, Intervention, Mark, OutsideEdit, Reseed, Run, RunKind
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.view import Rewindable
from nbdebug.training import initialization, rng, snapshots
from nbdebug.training.initialization import Redrawn
from nbdebug.training.journey import epochs_between
from nbdebug.training.optimizer_state import forget
from nbdebug.training.rng import RandomState
from nbdebug.training.script_scene import deed
from nbdebug.training.shelf import Kept, Shelf
from nbdebug.training.timeline import Place, Timeline

if TYPE_CHECKING:
    from nbdebug.training.session import Session
    from nbdebug.training.undoing import Exchange

SHARE = 0.012  # of the time, for snapshots every few steps
SHARE_AT_CHANGES = 0.05  # more is spent where one will want to come back to
WANTED_EVERY_S = 0.5
WANTED_EVERY_STEPS = 40
OTHER_BATCHES = "other batches"
OUT_OF_MEMORY = (MemoryError, RuntimeError)


@dataclass
class Undoable:
    """A change that can be taken back, and where it was made; and where, on each branch, it was taken back."""

    place: Place
    change: Changes | Exchange
    taken_back: list[Place] = field(default_factory=list)

    def rename(self, old: str, new: str) -> None:
        """A run has another name."""
        self.place = replace(self.place, run=new) if self.place.run == old else self.place
        self.taken_back = [replace(each, run=new) if each.run == old else each for each in self.taken_back]

    def stands(self, legs: Mapping[str, Place]) -> bool:
        """Whether it was made on this way, by the places where its runs are left, and not taken back on it."""
        made = self.place.run in legs and legs[self.place.run].applied >= self.place.applied
        return made and not any(back.run in legs and legs[back.run].reaches(back) for back in self.taken_back)


class Course:
    """Keeps timeline, shelf and record in step with what the session does."""

    def __init__(self, session: Session, shelf: Shelf, describe: Callable[[Run], Manifest]) -> None:
        self.timeline = Timeline()
        self.shelf = shelf
        self.adopted: tuple[int, RandomState] | None = None
        self.broken_off = False
        self._session = session
        self._describe = describe
        self.spent_s = 0.0
        self._trained_s = 0.0
        self._cost_s = 0.0
        self._lately_s: deque[float] = deque(maxlen=5)  # a machine may stall: its median says what one costs
        self._size_bytes = 0
        self._since_s = 0.0
        self._since_steps = 0
        self._finish_s = 0.0
        self._at_rest: tuple[snapshots.Fingerprint, Changes] | None = None
        self._undo: list[Undoable] = []
        self._undoing: Undoable | None = None
        self._complained = False
        self._start_is_no_help = False  # lazy layers had no shape then: the first step's end is kept instead

    @property
    def share(self) -> float:
        """The share of the time so far that snapshots took."""
        return self.spent_s / (self._trained_s + self.spent_s) if self._trained_s else 0.0

    @property
    def trained_s(self) -> float:
        """How long steps have taken so far."""
        return self._trained_s

    # -- setting out, going on, resting -------------------------------------------------------------------------

    def set_out(self) -> None:
        """Before training goes on: from a place in the past it goes on as a branch."""
        if not self.timeline.started:
            self._begin()
            return
        if self.timeline.behind:
            self.branch("")

    def steps_taken(self, losses: Sequence[float | None], seconds: float, *, settled: bool) -> None:
        """Steps were taken, in so many seconds; not ``settled`` while the end of their epoch is still to come.

        A loss is ``None`` while it is on its way from the device.
        """
        loop, timeline = self._session.loop, self.timeline
        timeline.steps_taken(loop.step, loop.epoch, losses, loop.batch_sum)
        if loop.doubt:
            self._mind_the_batch()
        self._since_s += seconds
        self._trained_s += seconds
        self._since_steps += len(losses)
        wanted = self._since_s >= WANTED_EVERY_S or self._since_steps >= WANTED_EVERY_STEPS
        due = wanted and self._since_s >= self._cost_s / SHARE
        if settled and (due or self._start_is_no_help):
            self._start_is_no_help = False
            self._take_if_wanted(Reason.SPACED)

    def epoch_finished(self, score: float, seconds: float) -> None:
        """An epoch was finished, which took so many seconds after its last step; the best has the lowest score."""
        loop, timeline = self._session.loop, self.timeline
        line = timeline.lines[timeline.current]
        bests = len(line.bests)
        timeline.epoch_finished(loop.step, loop.epoch, score)
        self._finish_s += (seconds - self._finish_s) * (0.3 if self._finish_s else 1.0)
        self._since_s += seconds
        improved = len(line.bests) > bests
        if self._since_s >= self._cost_s / (SHARE_AT_CHANGES if improved else SHARE):
            self._take_if_wanted(Reason.EPOCH)
        if improved:
            self.shelf.mark_best(timeline.current, self.shelf.nearest([timeline.here]))
            self._session.recorder.record_snapshots(self.shelf.infos())

    def rest(self) -> None:
        """Training stands still from now on: remember how everything is, to know a change from outside."""
        if self.timeline.started:
            self._at_rest = (self._fingerprint(), self._session.knobs.all_asked())

    def _fingerprint(self) -> snapshots.Fingerprint:
        """With the rates that a schedule wrote, which are no knob's value, and gradients that are still to be used."""
        session = self._session
        scheduled = [group.in_force for group in session.knobs.groups if group.scheduled]
        gathered = snapshots.gradient_norms(session.trainer) if session.knobs.update.accumulation.done else ""
        return (*snapshots.fingerprint(session.model, session.trainer), scheduled, gathered)

    def notice_edits(self) -> None:
        """What somebody changed since training rested: a seed, a knob by hand, or anything else, which is an edit."""
        session = self._session
        if self.timeline.started and self.adopted is not None:
            self._notice_seed(*self.adopted)
        if not self.timeline.started or self._at_rest is None:
            return
        before, asked = self._at_rest
        broken_off, self.broken_off = self.broken_off, False
        self._at_rest = None
        session.knobs.refresh()
        turned = session.knobs.changed_since(asked)
        edited = self._fingerprint() != before
        if not (edited or broken_off or turned):
            return
        if self.timeline.behind:
            self.branch("edited by hand")
        if turned:
            self._record(SetKnobs(turned))
            session.recorder.mark(self._mark(str(turned)))
        if edited or broken_off:
            self._record(
                OutsideEdit("a step broke off with an error" if broken_off else "something was edited by hand")
            )
            self.take(Reason.OUTSIDE)

    def _notice_seed(self, seed: int, state: RandomState) -> None:
        self.adopted = None
        with self._session.turns:
            self._session.loop.cursor.let_go()
        if self.timeline.behind:
            self.branch(f"seed {seed}")
        self._record(Reseed(seed), state)
        self._session.recorder.mark(self._mark(f"seed {seed}"))
        self.take(Reason.OUTSIDE)

    # -- changes ------------------------------------------------------------------------------------------------

    def make_ready(self, change: str) -> None:
        """Before an intervention: a snapshot to come back to, and a branch if the model stands in the past."""
        if not self.timeline.started:
            return
        if self.shelf.at(self.timeline.here) is None and self._since_s >= self._cost_s / SHARE_AT_CHANGES:
            self._take_if_wanted(Reason.INTERVENTION)
        if self.timeline.behind:
            self.branch(change)

    def intervene(self, change: Change, text: str) -> None:
        """An intervention was made; ``text`` says it on the curves."""
        timeline = self.timeline
        if not timeline.started:
            self._session.recorder.mark(self._mark(text))
            return
        amends = timeline.is_unstarted_branch() and isinstance(change, SetKnobs)
        self._record(change)
        if amends:
            self._amend()
        self._session.recorder.mark(self._mark(text))
        if self._session.at_rest:
            self.rest()

    def remember(self, before: Changes | Exchange) -> None:
        """A change was made, so that it can be taken back: of knobs, all of which were ``before``, or an exchange."""
        change = self._session.knobs.difference(before) if isinstance(before, Changes) else before
        self._undo.append(Undoable(self.timeline.here, change))

    def undo(self) -> Changes | Exchange:
        """The latest change on the way here that was not taken back yet: what takes knobs back, or an exchange.

        Raises:
            CommandError: there is none.
        """
        legs = {leg.run: leg for leg in self.timeline.lineage(self.timeline.here)}
        for made in reversed(self._undo):
            if made.change and made.stands(legs):
                made.taken_back.append(self.timeline.here)
                self._undoing = made
                return made.change
        raise CommandError("nothing to undo: no knob or part was changed on the way here; rewind() goes back in time")

    def undone(self) -> None:
        """The change that :meth:`undo` gave was taken back: from here on, and not on a way from before."""
        if self._undoing is not None:
            self._undoing.taken_back[-1] = self.timeline.here

    def since_last_step(self) -> Changes:
        """What leads from the knobs as they are to how they were for the latest step."""
        here, back = self.timeline.here, Changes()
        for made in reversed(self._undo):
            if (made.place.run, made.place.step) != (here.run, here.step):
                break
            back = back.then(made.change) if isinstance(made.change, Changes) else back
        return back

    def branch(self, change: str, *, kind: RunKind = RunKind.TRAINING, seed: int | None = None) -> Run:
        """Begin a run where the model is."""
        return self.timeline.branch(change, kind=kind, seed=seed, announce=self._announce)

    def plant(self, name: str) -> Run:
        """Begin a run that comes from a file."""
        loop = self._session.loop
        self.timeline.started = True
        return self.timeline.plant(name, loop.step, loop.epoch, announce=self._announce)

    def redo(self, made: Intervention, random: RandomState | None) -> None:
        """Make an intervention again, without a word."""
        session = self._session
        match made.change:
            case SetKnobs(changes):
                session.knobs.refresh()
                session.knobs.apply(changes)
            case Reinitialize():
                self.reinitialize(made.change)
            case Reseed(seed):
                if random is not None:
                    session.random.take_over(random)
                else:
                    self.reseed(seed)
            case (
                SwapOptimizer()
                | SetSchedule()
                | SwapActivations()
                | Freeze()
                | EditNorms()
                | SetAverage()
                | SplitDecay()
            ):
                session.refitter.refit(made.change)
            case Skip():
                session.leave_out_a_batch()
            case OutsideEdit(what):
                raise CommandError(f"{what} after step {made.step:,}, which can't be done again")

    def reinitialize(self, command: Reinitialize) -> Redrawn:
        """Draw new weights."""
        session = self._session
        with session.turns:
            redrawn = initialization.reinitialize(session.model, command.scheme, command.seed, command.layers)
        if redrawn.layers and not command.keep_optimizer_state:
            for optimizer in session.trainer.optimizers.values():
                forget(optimizer, redrawn.parameters)
        return redrawn

    def reseed(self, seed: int) -> None:
        """Other random numbers from here on, and other batches."""
        self._session.knobs.update.noise.reseed(seed)
        with self._session.turns:
            rng.reseed(seed)
            self._session.loop.cursor.reshuffle(seed)
            rng.reseed(seed)

    # -- snapshots ----------------------------------------------------------------------------------------------

    def take(self, reason: Reason, *, name: str = "", pinned: bool = False) -> Kept | None:
        """Keep the present state; ``None`` and a finding, once, where there is no room."""
        try:
            return self.take_or_refuse(reason, name=name, pinned=pinned)
        except CommandError as error:
            self.complain(str(error))
            return None

    def take_or_refuse(self, reason: Reason, *, name: str = "", pinned: bool = False) -> Kept:
        """Keep the present state.

        Raises:
            CommandError: there is no room.
        """
        began = time.perf_counter()
        here = self.timeline.here
        self.shelf.prepare(self._size_bytes, here)
        try:
            snapshot = self._session.snapshot()
        except OUT_OF_MEMORY as error:
            raise CommandError(
                f"no memory for a snapshot: {error}; give Debugger(snapshot_bytes=0) to use files"
            ) from error
        kept = self.shelf.add(here, snapshot, reason, name=name, pinned=pinned)
        self._size_bytes = snapshot.size_bytes
        self._session.recorder.record_snapshots(self.shelf.infos())
        self._rest_from_snapshots()
        self._lately_s.append(time.perf_counter() - began)
        self.spent_s += self._lately_s[-1]
        self._cost_s = statistics.median(self._lately_s)
        return kept

    def complain(self, why: str) -> None:
        """Say once that snapshots can't be kept."""
        if not self._complained:
            self._complained = True
            text = f"{why}. Training goes on; going back may take longer, or be refused."
            self._session.find(Cause.SNAPSHOTS, Severity.WARNING, "A snapshot could not be kept", text)

    def way_to(self, place: Place, wanted: Callable[[Kept], bool] | None = None) -> Kept:
        """The snapshot from which a place is reached, of those that are ``wanted``.

        Raises:
            CommandError: there is none any more.
        """
        if not self.timeline.started:
            raise CommandError("nothing to go back to yet: no step has been taken")
        legs = self.timeline.lineage(place)
        kept = self.shelf.nearest(legs, wanted)
        if kept is None:
            raise CommandError(f"step {place.step:,} can't be gone back to: no snapshot before it could be kept")
        if kept.state is not None and kept.state.modules.lazy:
            raise CommandError(
                "can't go back to before the first step: the model's lazy layers had no shape then. "
                "Run the model once on a batch before making the Debugger"
            )
        return kept

    def cost_s(self, kept: Kept, place: Place) -> float:
        """About how long it takes to get from a snapshot to a place."""
        session = self._session
        steps_s = max(place.step - kept.place.step, 0) * session.seconds_per_step
        return session.restore_s + steps_s + epochs_between(self.timeline, kept, place) * self._finish_s

    def rewindable(self, infos: tuple[SnapshotInfo, ...]) -> Rewindable:
        """What the rewind slider covers, given the snapshots that there are. Any thread."""
        timeline, session = self.timeline, self._session
        line = timeline.lines.get(timeline.current)
        if not timeline.started or line is None:
            return Rewindable(blocked="nothing to go back to yet")
        limits = {leg.run: leg.step for leg in timeline.lineage(line.tip)}
        steps = {info.step for info in infos if info.run in limits and info.step <= limits[info.run]}
        restore_s = session.restore_s or self._cost_s
        return Rewindable(line.tip.step, tuple(sorted(steps)), session.seconds_per_step, restore_s)

    # -- inside -------------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Keep the very first state, and say beforehand what can't be had."""
        session = self._session
        self.adopted = None
        size = snapshots.expected_bytes(session.model, session.trainer)
        self._size_bytes = size
        if size * 2 > self.shelf.memory_bytes > 0:
            self.shelf.memory_bytes = 0
        if self.shelf.memory_bytes == 0:
            text = (
                f"One takes about {size / 1e6:,.0f} MB, too much to keep several in memory; they go to files, which "
                "takes longer. Debugger(snapshot_bytes=...) allows more memory, snapshot_folder=... says where."
            )
            session.find(Cause.SNAPSHOTS, Severity.INFO, "Snapshots go to disk", text)
        if session.loop.doubt:
            text = (
                f"Going back starts the epoch's loader anew and passes over what was seen, but {session.loop.doubt}. "
                f"The rest comes back exactly; a branch that got other batches is labelled {OTHER_BATCHES!r}."
            )
            session.find(Cause.NOT_REPRODUCIBLE, Severity.INFO, "Going back may take other batches", text)
        self.timeline.started = True
        self._start_is_no_help = snapshots.has_lazy_parts(session.model)
        session.recorder.record_manifest(self._describe(self.timeline.runs[self.timeline.current]))
        self.take(Reason.START)

    def _take_if_wanted(self, reason: Reason) -> None:
        if self.timeline.lines[self.timeline.current].run.kind is RunKind.TRAINING:
            self.take(reason)
        self._rest_from_snapshots()

    def _rest_from_snapshots(self) -> None:
        self._since_s, self._since_steps = 0.0, 0

    def _record(self, change: Change, random: RandomState | None = None) -> None:
        session = self._session
        made = deed(change, session.model, session.knobs, session.refitter.lines)
        session.recorder.record_intervention(self.timeline.intervene(change, random, made))

    def _announce(self, run: Run) -> None:
        """A run is on record before the model is said to hold it: the drawing thread may look in between."""
        recorder = self._session.recorder
        recorder.begin_run(run)
        if run.kind is RunKind.TRAINING:
            recorder.record_manifest(self._describe(run))

    def _amend(self) -> None:
        """A branch without steps got one more change: it is named by all of them."""
        changes = Changes()
        for made in self.timeline.lines[self.timeline.current].interventions:
            assert isinstance(made.change, SetKnobs)
            changes = changes.then(made.change.changes)
        if str(changes) == self.timeline.lines[self.timeline.current].run.change:
            return
        recorder = self._session.recorder
        old, run = self.timeline.amend(str(changes), announce=self._announce)
        for each in self._undo:
            each.rename(old, run.name)
        self.shelf.rename_run(old, run.name)
        recorder.delete_run(old)
        for made in self.timeline.lines[run.name].interventions:
            recorder.record_intervention(made)

    def _mark(self, text: str) -> Mark:
        return Mark(self.timeline.current, self._session.loop.step, text)

    def _mind_the_batch(self) -> None:
        """A branch that gets other batches than its parent had at the same step is labelled."""
        timeline, loop = self.timeline, self._session.loop
        run = timeline.lines[timeline.current].run
        if run.parent is None or run.seed is not None or run.caveat:
            return
        known = timeline.batch_of(run.parent, loop.step) if run.parent in timeline.lines else 0
        if known and known != loop.batch_sum:
            self.give_caveat(OTHER_BATCHES)

    def give_caveat(self, caveat: str) -> None:
        """Label the current run."""
        run = replace(self.timeline.lines[self.timeline.current].run, caveat=caveat)
        self.timeline.edit(run)
        self._session.recorder.edit_run(run)
