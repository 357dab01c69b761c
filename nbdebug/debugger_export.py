"""Exporting a run: its course, flattened from the first step to its end, as a script or as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from nbdebug.records.errors import CommandError
from nbdebug.records.runs import Intervention
from nbdebug.records.snapshots import Reason
from nbdebug.training import script as script_file
from nbdebug.training.session import Session
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.timeline import Line

T = TypeVar("T")


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
        reseeded=_kept(session, course, lambda line: line.random),
        deeds=_kept(session, course, lambda line: line.deeds),
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


def _kept(session: Session, course: list[Intervention], of: Callable[[Line], Mapping[int, T]]) -> dict[int, T]:
    """By index in the course, what the runs keep beside their interventions."""
    known = {
        id(line.interventions[index]): kept
        for line in session.timeline.lines.values()
        for index, kept in of(line).items()
    }
    return {index: known[id(made)] for index, made in enumerate(course) if id(made) in known}
