"""Exporting a run: its course, flattened from the first step to its end, as a script or as JSON."""

from __future__ import annotations

from pathlib import Path

from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Intervention
from nbdebug.records.snapshots import Reason
from nbdebug.training import script as script_file
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
        reseeded=_adopted(session, course),
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


def _adopted(session: Session, course: list[Intervention]) -> dict[int, RandomState]:
    """By index in the course, the random states that a seed set from outside put into force."""
    known = {
        id(line.interventions[index]): state
        for line in session.timeline.lines.values()
        for index, state in line.random.items()
    }
    return {index: known[id(made)] for index, made in enumerate(course) if id(made) in known}
