"""Comparing two runs by reruns of both under other seeds: what to rerun, what it costs, and the verdict.

Gives a session commands one after the other, from any thread but the training thread, holding it reserved meanwhile;
the statistics are :mod:`nbdebug.tools.comparison`'s. Afterwards the model is where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nbdebug.debugger_excursion import ask, excursion
from nbdebug.journal.journal import Journal
from nbdebug.journal.run_record import RunRecord
from nbdebug.records.commands import Replicate
from nbdebug.records.comparison import Comparison
from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Intervention, OutsideEdit, Run
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.status import State
from nbdebug.records.view import Points
from nbdebug.tools import comparison
from nbdebug.training.mailbox import Reservation
from nbdebug.training.session import Session
from nbdebug.training.timeline import Place

FIRST_SEED = 1_000_003  # far from the seeds that people choose, so that no rerun repeats one of theirs
PROBED_STEPS = 5
TRAIN_LOSS = Series(Signal.LOSS, split=Split.TRAIN)
Curves = Mapping[Series, Points]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a comparison will do: ``reruns`` of ``steps`` steps each, which take about ``seconds`` in all."""

    parent: str
    run: str
    place: Place
    last_step: int
    seeds: int
    reruns: int
    seconds: float
    repeats_run: bool
    repeats_parent: bool

    @property
    def steps(self) -> int:
        """Steps that are compared."""
        return self.last_step - self.place.step

    def __str__(self) -> str:
        about = f"about {self.seconds:.0f} s" if self.seconds >= 1 else "under 1 s"
        return f"comparing {self.run!r} with {self.parent!r}: {self.reruns} reruns of {self.steps:,} steps, {about}"


@dataclass
class Comparer:
    """Compares runs of one session; reruns that were made already are used again."""

    session: Session
    journal: Journal
    _made: dict[tuple[object, ...], str] = field(default_factory=dict)

    def plan(self, parent: str, run: str, seeds: int) -> Plan:
        """What it takes to compare two runs.

        Raises:
            CommandError: they have no steps to compare.
        """
        timeline = self.session.timeline
        parent, run = timeline.named(parent), timeline.named(run)
        place, changes = timeline.parting(parent, run, run)
        parents_changes = timeline.parting(parent, run, parent)[1]
        last, parents_last = timeline.lines[run].tip.step, timeline.lines[parent].tip.step
        if parent == run or last <= place.step:
            raise CommandError(
                f"nothing to compare: {run!r} has taken no step of its own since it left {parent!r}; train it first"
            )
        if parents_last > place.step:
            last = min(last, parents_last)
        repeats_run, repeats_parent = can_be_repeated(changes), can_be_repeated(parents_changes)
        sides = [name for name, can in ((parent, repeats_parent), (run, repeats_run and repeats_parent)) if can]
        wanted: list[tuple[str, int | None]] = [(side, FIRST_SEED + index) for index in range(seeds) for side in sides]
        wanted += [(parent, None)] if parents_last <= place.step else []
        reruns = sum(self._key(parent, run, side, last, seed) not in self._made for side, seed in wanted)
        each_s = (last - place.step) * self.session.seconds_per_step + self.session.restore_s
        return Plan(parent, run, place, last, seeds, reruns, reruns * each_s, repeats_run, repeats_parent)

    def _key(self, parent: str, run: str, follow: str, last_step: int, seed: int | None) -> tuple[object, ...]:
        """By what a rerun that was made is known again."""
        place, course = self.session.timeline.parting(parent, run, follow)
        return (place, follow, repr(course), last_step, seed)

    def compare(
        self, plan: Plan, *, lower_is_better: Collection[str] = (), tell: Callable[[str], None] = lambda _: None
    ) -> Comparison:
        """Rerun both sides under other seeds, and judge. ``tell`` gets a word on progress before each rerun.

        Raises:
            CommandError: somebody called it off, or the session is held by somebody else.
        """
        with self.session.reserved(str(plan)) as hold, excursion(self.session, hold, f"(before comparing {plan.run})"):
            pairs, caveat = self._pairs(plan, hold, tell)
        runs = self.session.timeline.runs
        made = comparison.compare(
            runs[plan.parent].shown,
            runs[plan.run].shown,
            pairs,
            first_step=plan.place.step + 1,
            last_step=plan.last_step,
            lower_is_better=(*lower_is_better, *self._parts()),
            caveat="; ".join(text for text in (runs[plan.run].caveat, caveat) if text),
        )
        self.journal.record_comparison(made)
        return made

    def _parts(self) -> tuple[str, ...]:
        """The parts of the loss by name."""
        parts = self.session.trainer.loss_parts
        return () if parts is None else tuple(parts.parts)

    # -- inside -------------------------------------------------------------------------------------------------

    def _pairs(self, plan: Plan, hold: Reservation, tell: Callable[[str], None]) -> tuple[list[comparison.Pair], str]:
        """The original pair first, then one for each seed."""
        done = 0

        def rerun(follow: str, seed: int | None, last_step: int = plan.last_step) -> Curves:
            nonlocal done
            done += 1
            hold.activity = f"comparing {plan.run} with {plan.parent}: rerun {min(done, plan.reruns)} of {plan.reruns}"
            tell(hold.activity)
            name = self._repeat(plan, follow, seed, last_step, hold)
            return curves(self.journal, name, plan.place.step, last_step)

        parent: Curves = curves(self.journal, plan.parent, plan.place.step, plan.last_step)
        run = curves(self.journal, plan.run, plan.place.step, plan.last_step)
        if TRAIN_LOSS not in parent:
            parent = rerun(plan.parent, None)
        if not plan.repeats_parent:
            return [comparison.Pair(parent, run)], "the parent was edited by hand, so it can't be rerun for its noise"
        if not plan.repeats_run:
            caveat = "the branch was edited by hand and can't be rerun"
        elif not self._comes_out_alike(plan, run, hold):
            caveat = "the branch does not come out the same when rerun: something it depends on is not on record"
        else:
            caveat = ""
        pairs = [comparison.Pair(parent, run)]
        for index in range(plan.seeds):
            seed = FIRST_SEED + index
            again = rerun(plan.parent, seed)
            pairs.append(comparison.Pair(again, None if caveat else rerun(plan.run, seed)))
        return pairs, caveat

    def _comes_out_alike(self, plan: Plan, recorded: Curves, hold: Reservation) -> bool:
        """Whether the first steps of the branch, rerun as they were, give the losses on record."""
        last = min(plan.last_step, plan.place.step + PROBED_STEPS)
        name = self._repeat(plan, plan.run, None, last, hold)
        again = curves(self.journal, name, plan.place.step, last)[TRAIN_LOSS]
        first = recorded[TRAIN_LOSS]
        both = np.isin(first.steps, again.steps)
        return np.array_equal(first.values[both], again.values[np.isin(again.steps, first.steps)], equal_nan=True)

    def _repeat(self, plan: Plan, follow: str, seed: int | None, last_step: int, hold: Reservation) -> str:
        """The name of a run that takes the course of ``follow`` again, made unless there is one."""
        key = self._key(plan.parent, plan.run, follow, last_step, seed)
        if key in self._made and self._made[key] in self.session.timeline.lines:
            return self._made[key]
        if hold.cancelled:
            raise CommandError("the comparison was called off; the model is where it was")
        name = ask(self.session, Replicate((plan.parent, plan.run), follow, last_step, seed), hold).made
        self.session.wait(lambda state: state not in (State.RUNNING, State.REWINDING))
        if hold.cancelled:
            raise CommandError("the comparison was called off; the model is where it was")
        if self.session.failure is not None and self.session.state is State.FAILED:
            raise self.session.failure.exception
        self._made[key] = name
        return name


def curves(journal: Journal, run: str, after: int, last: int) -> dict[Series, Points]:
    """Losses and metrics of a run, its parents' steps included, from after one step up to another."""
    parts: dict[Series, list[Points]] = {}
    for name, limit in journal.lineage(run):
        ends = last if limit is None else min(last, limit)
        for series, points in journal.read(name, _losses_and_metrics):
            chosen = (points.steps > after) & (points.steps <= ends)
            if chosen.any():
                parts.setdefault(series, []).append(Points(points.steps[chosen], points.values[chosen]))
    return {
        series: Points(np.concatenate([p.steps for p in found]), np.concatenate([p.values for p in found]))
        for series, found in parts.items()
    }


def _losses_and_metrics(kept: RunRecord) -> list[tuple[Series, Points]]:
    wanted = (Signal.LOSS, Signal.METRIC)
    return [(series, curve.points()) for series, curve in kept.curves.items() if series.signal in wanted]


def can_be_repeated(changes: Sequence[Intervention]) -> bool:
    """Whether all of these can be done again."""
    return not any(isinstance(made.change, OutsideEdit) for made in changes)


def sides(runs: Mapping[str, Run], one: str, other: str | None) -> tuple[str, str]:
    """Parent and run: of one run its parent, of two the first is the parent.

    Raises:
        CommandError: a single run that has no parent.
    """
    if other is not None:
        return one, other
    parent = runs[one].parent
    if parent is None:
        raise CommandError(f"{one!r} has no parent to be compared with: name two runs, compare('main', 'lr 0.001')")
    return parent, one
