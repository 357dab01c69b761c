"""The user's step breaks off with an error on a batch of their own loader."""

from __future__ import annotations

import traceback

from nbdebug.checks.check import Check, Say
from nbdebug.checks.preflight.look import Look
from nbdebug.records.findings import Cause, Remedy, Severity
from nbdebug.records.stops import CodeLine
from nbdebug.tools.origin_frames import Owner, owner_of


def judge(look: Look, say: Say) -> None:
    """The first step on the side."""
    look.experiments.mind_calls()
    error = next((trace.error for trace in look.traces if trace.error is not None), None)
    if error is None:
        return
    say.find(
        Cause.USER_ERROR,
        Severity.CRITICAL,
        f"The step raises {type(error).__name__}",
        f"On a batch of the training loader your step breaks off: {str(error)[:500] or type(error).__name__}",
        remedies=(Remedy("Mend what the traceback points at, then check again."),),
        line=_line(error),
        detail="".join(traceback.format_exception(error)),
    )


def _line(error: BaseException) -> CodeLine | None:
    """The innermost line of the user's own."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if owner_of(each.filename) is Owner.USER]
    if not frames:
        return None
    last = frames[-1]
    return CodeLine(last.filename, last.lineno or 0, last.name, last.line or "")


CHECK = Check(
    "step_raises",
    "your step runs through",
    judge,
    (Cause.USER_ERROR,),
    source="your own step, on a batch of your own loader",
    passive=False,
)
