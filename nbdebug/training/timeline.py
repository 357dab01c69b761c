"""The tree of runs: which run the model holds and where in it, what changed its course, and how to get back there.

Training thread only. A place is a point between two steps of a run. Any place can be come back to: the nearest snapshot
before it, then the steps and interventions from there on, done again (see :mod:`nbdebug.training.journey`).
"""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nbdebug.records.commands import SetKnobs, StartPoint
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Change, Intervention, OutsideEdit, Run, RunKind
from nbdebug.training.rng import RandomState
from nbdebug.training.script_scene import Deed

MAIN = "main"
MOST_VERIFIED = 1_000_000
ANY_EPOCH = -1
KNOBS = (
    *("lr", "clip", "dropout", "layer_clips", "gradient_noise", "accumulate"),
    *("batch_size", "label_smoothing", "loss_weights"),
)


@dataclass(frozen=True, slots=True)
class Place:
    """After ``step`` steps of ``run``, ``epoch`` epochs being finished and ``applied`` of its interventions made."""

    run: str
    step: int
    epoch: int
    applied: int

    def reaches(self, other: Place) -> bool:
        """Whether, within one run, this is ``other`` or comes after it; an epoch below 0 is any."""
        if self.applied < other.applied:
            return False
        if self.epoch < 0 or other.epoch < 0:
            return self.step >= other.step
        return (self.step, self.epoch) >= (other.step, other.epoch)


@dataclass
class Line:
    """A run, where it left its parent, and what happened along it. Step ``k``'s loss is ``losses[k - run.step - 1]``.

    ``bests`` are the epochs' ends that were the best so far, each with its score.

    ``random`` holds the states that a :class:`~nbdebug.records.runs.Reseed` took over, by the intervention's index, and
    ``deeds`` what is needed to write an intervention into a script.
    """

    run: Run
    origin: Place | None
    tip: Place
    interventions: list[Intervention] = field(default_factory=list)
    random: dict[int, RandomState] = field(default_factory=dict)
    deeds: dict[int, Deed] = field(default_factory=dict)
    losses: array[float] = field(default_factory=lambda: array("d"))
    batches: array[int] = field(default_factory=lambda: array("L"))
    epoch_ends: array[int] = field(default_factory=lambda: array("q"))
    first_epoch: int = 0
    bests: list[tuple[Place, float]] = field(default_factory=list)


class Timeline:
    """Runs by name, and the place of the model among them."""

    def __init__(self) -> None:
        self.started = False
        self.here = Place(MAIN, 0, 0, 0)
        self.lines: dict[str, Line] = {MAIN: Line(Run(MAIN, created_s=time.time()), None, self.here)}

    @property
    def current(self) -> str:
        """The run that the model holds."""
        return self.here.run

    @property
    def runs(self) -> dict[str, Run]:
        """All runs by name, oldest first."""
        return {name: line.run for name, line in self.lines.items()}

    @property
    def behind(self) -> bool:
        """Whether the model stands before the end of its run, so that whatever comes next begins a branch."""
        return self.here != self.lines[self.current].tip

    # -- going on -----------------------------------------------------------------------------------------------

    def steps_taken(self, step: int, epoch: int, losses: Sequence[float | None], batch: int) -> None:
        """The model went on by some steps, to ``step``, at the end of its run.

        A loss of ``None`` comes later, by :meth:`loss_arrived`. ``batch`` is a checksum of the last batch, 0 where
        none is kept, else it is a single step.
        """
        line, here = self.lines[self.current], self.here
        if len(line.losses) + len(losses) <= MOST_VERIFIED:
            line.losses.extend(math.nan if loss is None else loss for loss in losses)
            line.batches.extend([batch] * len(losses))
        self._moved(line, Place(here.run, step, epoch, here.applied))

    def loss_arrived(self, step: int, loss: float) -> None:
        """The loss of an earlier step of the current run came from the device."""
        line = self.lines[self.current]
        index = step - line.run.step - 1
        if 0 <= index < len(line.losses):
            line.losses[index] = loss

    def epoch_finished(self, step: int, epoch: int, score: float) -> None:
        """An epoch ended; ``score`` is the loss by which the best one is known, lower being better."""
        line = self.lines[self.current]
        line.epoch_ends.append(step)
        self._moved(line, replace(self.here, step=step, epoch=epoch))
        if score < (line.bests[-1][1] if line.bests else math.inf):
            line.bests.append((line.tip, score))

    def intervene(self, change: Change, random: RandomState | None = None, deed: Deed | None = None) -> Intervention:
        """Something changed the course of the current run, at its end; ``random`` is what a reseeding took over."""
        line, here = self.lines[self.current], self.here
        made = Intervention(here.run, here.step, here.epoch, change)
        if random is not None:
            line.random[here.applied] = random
        if deed is not None:
            line.deeds[here.applied] = deed
        line.interventions.append(made)
        self._moved(line, replace(here, applied=here.applied + 1))
        return made

    def branch(
        self,
        change: str,
        *,
        kind: RunKind = RunKind.TRAINING,
        seed: int | None = None,
        announce: Callable[[Run], None] = lambda _: None,
    ) -> Run:
        """A new run that begins here; it becomes the current one when it has been announced."""
        at = self.here
        name = self._free_name(change or ("rerun" if seed is None else f"seed {seed}"))
        run = Run(name, at.run, at.step, change, kind, seed, created_s=time.time())
        announce(run)
        self._enter(run, at)
        return run

    def amend(self, change: str, *, announce: Callable[[Run], None] = lambda _: None) -> tuple[str, Run]:
        """Give a branch that has no steps yet another change; returns its old name and the run as it is now."""
        line = self.lines[self.current]
        name = self._free_name(change or "rerun")
        run = replace(line.run, name=name, change=change)
        announce(run)
        line.interventions = [replace(each, run=name) for each in line.interventions]
        self.lines[name] = replace(line, run=run, tip=replace(line.tip, run=name))
        self.here = self.lines[name].tip
        del self.lines[line.run.name]
        return line.run.name, run

    def plant(self, name: str, step: int, epoch: int, *, announce: Callable[[Run], None] = lambda _: None) -> Run:
        """A run without a parent, such as one that goes on from a file; it becomes the current one."""
        run = Run(self._free_name(name), None, step, "from a file", created_s=time.time())
        announce(run)
        self._enter(run, None, epoch)
        return run

    def edit(self, run: Run) -> None:
        """Another title, note, pin or caveat."""
        self.lines[run.name].run = run

    def delete(self, name: str) -> list[str]:
        """Forget a run, and the reruns that measured noise from it; returns all their names.

        Raises:
            CommandError: the model holds it, others come from it, or it is the first.
        """
        children = [line.run for line in self.lines.values() if line.run.parent == name]
        lasting = [run.shown for run in children if run.kind is RunKind.TRAINING]
        if name == self.current:
            raise CommandError(f"{name!r} can't be deleted: the model holds it; check out another run first")
        if lasting:
            raise CommandError(f"{name!r} can't be deleted: {', '.join(map(repr, lasting))} came from it")
        if name == MAIN:
            raise CommandError(f"{MAIN!r} can't be deleted: it holds the first step")
        gone = [name, *(run.name for run in children)]
        for each in gone:
            del self.lines[each]
        return gone

    def is_unstarted_branch(self) -> bool:
        """Whether the current run is a branch that was changed by knobs alone and has taken no step yet."""
        line = self.lines[self.current]
        return (
            line.origin is not None
            and self.here == line.tip
            and (line.tip.step, line.tip.epoch) == (line.origin.step, line.origin.epoch)
            and all(isinstance(each.change, SetKnobs) for each in line.interventions)
            and not any(other.run.parent == self.current for other in self.lines.values())
        )

    # -- finding places -----------------------------------------------------------------------------------------

    def named(self, run: str) -> str:
        """The name of a run given by its name or title.

        Raises:
            CommandError: there is none.
        """
        if run in self.lines:
            return run
        titled = [name for name, line in self.lines.items() if run and line.run.title == run]
        if not titled:
            shown = [line.run.shown for line in self.lines.values() if line.run.kind is RunKind.TRAINING]
            raise CommandError(f"no run {run!r}: there are {', '.join(map(repr, shown))}")
        return titled[-1]

    def at_step(self, step: int, run: str = "") -> Place:
        """The place after ``step`` steps of a run (by default the current) or the parents it came from.

        At a branch's first place this is its parent's, before the change.

        Raises:
            CommandError: that step was never taken.
        """
        name = run or self.current
        line = self.lines[name]
        if step > line.tip.step or step < 0:
            raise CommandError(
                f"step {step:,} of {line.run.shown!r} was never recorded: it has steps 0 to {line.tip.step:,}"
            )
        while line.origin is not None and step <= line.run.step:
            name, line = line.origin.run, self.lines[line.origin.run]
        if step < line.run.step:
            raise CommandError(f"step {step:,} was never recorded: {line.run.shown!r} begins at step {line.run.step:,}")
        applied = sum(each.step < step for each in line.interventions)
        return Place(name, step, ANY_EPOCH, applied)

    def start_of(self, start: StartPoint) -> Place:
        """The place of a named start.

        Raises:
            CommandError: there is nothing to go back to.
        """
        trained = any(line.tip.step > line.run.step for line in self.lines.values())
        if not self.started or not (trained or start is StartPoint.HERE):
            raise CommandError("nothing to rerun yet: no step has been taken; call run(epochs=1) or press ▶ first")
        if start is StartPoint.HERE:
            return self.here
        if start is StartPoint.LAST_EPOCH:
            return self._last_epoch()
        if start is StartPoint.BEST:
            return self._best()
        return self._first()

    def lineage(self, place: Place) -> list[Place]:
        """The places at which each run that leads there was left, oldest first; the last is ``place``."""
        legs = [place]
        while (origin := self.lines[legs[-1].run].origin) is not None:
            legs.append(origin)
        return legs[::-1]

    def parting(self, one: str, other: str, follow: str) -> tuple[Place, list[Intervention]]:
        """Where two runs parted, and what changed the course of ``follow``, one of them, from there on.

        Raises:
            CommandError: they have nothing in common.
        """
        legs = {name: self.lineage(self.lines[name].tip) for name in (one, other)}
        shared = [pair for pair in zip(legs[one], legs[other], strict=False) if pair[0].run == pair[1].run]
        if not shared:
            raise CommandError(f"{one!r} and {other!r} have no step in common")
        place = min(shared[-1], key=lambda leg: (leg.step, leg.epoch, leg.applied))
        course: list[Intervention] = []
        for leg in legs[follow][len(shared) - 1 :]:
            first = place.applied if leg.run == place.run else 0
            course += self.lines[leg.run].interventions[first : leg.applied]
        return place, course

    def course(self, place: Place) -> list[Intervention]:
        """All interventions on the way to a place, oldest first."""
        return [each for leg in self.lineage(place) for each in self.lines[leg.run].interventions[: leg.applied]]

    def origins(self, place: Place) -> dict[str, str]:
        """By knob, where its value at a place comes from, in words."""
        found = dict.fromkeys(("lr", "clip", "dropout"), "as at the start")
        for made in self.course(place):
            if isinstance(made.change, SetKnobs):
                changes = made.change.changes
                touched = [knob for knob in KNOBS if getattr(changes, knob) is not None]
                for knob in (*touched, *(changes.options or ())):
                    found[knob] = f"set at step {made.step:,} of {self.lines[made.run].run.shown}"
        return found

    def loss_of(self, run: str, step: int) -> float | None:
        """The training loss recorded for a step of a run or its parents, if it still is."""
        line = self._line_with(run, step)
        index = step - line.run.step - 1
        return line.losses[index] if 0 <= index < len(line.losses) else None

    def batch_of(self, run: str, step: int) -> int:
        """The checksum recorded of a step's batch, 0 for none."""
        line = self._line_with(run, step)
        index = step - line.run.step - 1
        return line.batches[index] if 0 <= index < len(line.batches) else 0

    def refuse_outside_edits(self, place: Place, applied: int) -> None:
        """Refuse a way to ``place`` that leads over a change by hand, from after ``applied`` interventions on."""
        for made in self.lines[place.run].interventions[applied : place.applied]:
            if isinstance(made.change, OutsideEdit):
                raise CommandError(
                    f"step {place.step:,} can't be gone back to: {made.change.what} after step {made.step:,}, which "
                    "can't be done again, and the snapshot taken then is gone"
                )

    # -- inside -------------------------------------------------------------------------------------------------

    def _enter(self, run: Run, origin: Place | None, epoch: int = 0) -> None:
        epoch = origin.epoch if origin is not None else epoch
        self.here = Place(run.name, run.step, epoch, 0)
        self.lines[run.name] = Line(run, origin, self.here, first_epoch=epoch)

    def _moved(self, line: Line, place: Place) -> None:
        line.tip = self.here = place

    def _first(self) -> Place:
        root = self.lines[self.lineage(self.here)[0].run]
        return Place(root.run.name, root.run.step, root.first_epoch, 0)

    def _last_epoch(self) -> Place:
        """The latest start of an epoch before the present step."""
        for leg in reversed(self.lineage(self.here)):
            ends = self.lines[leg.run].epoch_ends
            before = next(
                (i for i in reversed(range(len(ends))) if ends[i] < self.here.step and ends[i] <= leg.step), None
            )
            if before is not None:
                place = self.at_step(ends[before], leg.run)
                return replace(place, epoch=self.lines[leg.run].first_epoch + before + 1)
        return self._first()

    def _best(self) -> Place:
        reached = [
            best for leg in self.lineage(self.here) for best in self.lines[leg.run].bests if leg.reaches(best[0])
        ]
        if not reached:
            raise CommandError("there is no best epoch yet: none was finished")
        return min(reached, key=lambda best: best[1])[0]

    def _line_with(self, run: str, step: int) -> Line:
        line = self.lines[run]
        while line.origin is not None and step <= line.run.step:
            line = self.lines[line.origin.run]
        return line

    def _free_name(self, wanted: str) -> str:
        name, count = wanted, 1
        taken = {*self.lines, *(line.run.title for line in self.lines.values())}
        while name in taken:
            count += 1
            name = f"{wanted} ({count})"
        return name
