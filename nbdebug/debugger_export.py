"""Exporting a run: its course, flattened from the first step to its end, as a script or as JSON."""

from __future__ import annotations

from pathlib import Path

from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Intervention, Reseed
from nbdebug.records.snapshots import Reason
from nbdebug.training import rng
try:
    from nbdebug.training import script as script_file
except ImportError:
    script_file = None  # TEMPORARY
from nbdebug.training.rng import RandomState
from nbdebug.training.session import Session
from nbdebug.training.snapshots import Snapshot


def script(session: Session, path: Path, run: str | None = None) -> Path:
    """Write a script that makes a run again, and its start beside it; returns the script's path.

    Raises:
        CommandError: nothing was trained, or something that was done can't be repeated by a script.
    """
    timeline = session.timeline
    name = timeline.named(run or timeline.current)
    tip = timeline.lines[name].tip
    course = timeline.course(tip)
    written, _ = script_file.export(
        path,
        model=session.model,
        trainer=session.trainer,
        start=_start(session, name),
        interventions=course,
        end_step=tip.step,
        end_epoch=tip.epoch,
        reseeded=_reseeded(session, course),
        run=timeline.lines[name].run.shown,
    )
    return written


def interventions_json(session: Session, run: str | None = None) -> str:
    """What changed the course of a run, oldest first, as JSON."""
    timeline = session.timeline
    name = timeline.named(run or timeline.current)
    return script_file.interventions_json(timeline.course(timeline.lines[name].tip))


def _start(session: Session, run: str) -> Snapshot:
    timeline, shelf = session.timeline, session.course.shelf
    root = timeline.lineage(timeline.lines[run].tip)[0].run
    kept = next((kept for kept in shelf.of(root) if kept.reason is Reason.START), None)
    if kept is None:
        raise CommandError("nothing to export yet: no step has been taken")
    return kept.load()


def _reseeded(session: Session, course: list[Intervention]) -> dict[int, RandomState]:
    """By index, the random states that went into force; a rerun's seed counts where it alone decides the batches."""
    states: dict[int, RandomState] = {}
    kept = {id(m): s for line in session.timeline.lines.values() for m, s in _states(line.interventions, line.random)}
    for index, made in enumerate(course):
        if not isinstance(made.change, Reseed):
            continue
        if id(made) in kept:
            states[index] = kept[id(made)]
            continue
        if session.loop.cursor.has_own_randomness or not _at_an_epochs_start(session, made):
            raise CommandError(
                f"the seed {made.change.seed} at step {made.step:,} also changed the order of the data in a way that a "
                "script can't repeat; rerun from an epoch's start, with a loader that draws from torch's own generator"
            )
        with rng.preserved():
            rng.reseed(made.change.seed)
            states[index] = RandomState.capture()
    return states


def _states(
    interventions: list[Intervention], random: dict[int, RandomState]
) -> list[tuple[Intervention, RandomState]]:
    return [(interventions[index], state) for index, state in random.items()]


def _at_an_epochs_start(session: Session, made: Intervention) -> bool:
    timeline = session.timeline
    ends = {end for line in timeline.lines.values() for end in line.epoch_ends}
    return made.step == 0 or made.step in ends
