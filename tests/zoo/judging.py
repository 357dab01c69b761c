"""Judges one program: builds it, asks the preflight, and for what shows only live, trains some steps.

What was found stands in the order that the debugger gives it at the end, then what it no longer finds.
"""

from __future__ import annotations

import hashlib
import time
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from nbdebug import Debugger
from tests.zoo.collection import named
from tests.zoo.program import Program
from tests.zoo.rows import Checked, Found, Measured, Row
from tests.zoo.training import End, first_broken, train

ROOT = Path(__file__).resolve().parents[2]
HOUSEKEEPING = frozenset(
    {
        "early_stop",
        "breakpoint_disabled",
        "model_edited",
        "watching_disabled",
        "not_reproducible",
        "snapshots",
        "journal",
    }
)  # said of the debugger's own work, not of the program


class Job(NamedTuple):
    """What a child process is to do: a program, a seed, and how many steps to train healthy ones, 0 for none."""

    program: str
    seed: int
    live_steps: int
    to_the_end: bool = False

    @property
    def mode(self) -> str:
        """How far healthy programs are trained, in a word."""
        return f"{self.live_steps}{' or settled' if self.to_the_end else ''}" if self.live_steps else ""


def work(job: Job) -> Row:
    """Judge one program, in a child process."""
    return judge(named(job.program), job, sources=sources())


@cache
def sources() -> str:
    """A digest of all that a row depends on: the code of the package and the zoo. Not what is fitted to rows."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "nbdebug").rglob("*.py"), *(ROOT / "tests" / "zoo").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def judge(program: Program, job: Job, *, sources: str = "") -> Row:
    """The row of a program: preflight, then as many steps as it says, or as the job says for a healthy one.

    With ``to_the_end`` healthy ones are trained until their loss has settled, at most so many steps.
    """
    began = time.perf_counter()
    steps, end = _steps(program, job), End()
    model, trainer = program.build(job.seed)
    debugger = Debugger(model, trainer, journal=None)
    try:
        report = debugger.preflight()
        error = train(debugger, steps, end if job.to_the_end and program.healthy else None) if steps else ""
        found = _told(debugger, report) if steps else [_found(each) for each in report.findings]
        taken, broke = debugger.status.last_step, first_broken(debugger)
    finally:
        debugger.close()
    return Row(
        program.name, job.seed, str(program.kind), program.cause, program.family, program.also,
        found=tuple(each for each in found if each.cause not in HOUSEKEEPING),
        checks=tuple(_checked(result) for result in report.results),
        preflight_seconds=float(report.seconds),
        seconds=time.perf_counter() - began,
        live_steps=taken, error=error, sources=sources, broke=broke, mode=job.mode, settled=end.has_settled,
    )  # fmt: skip


def _steps(program: Program, job: Job) -> int:
    """How many to train, at most."""
    if not job.live_steps or not program.healthy:
        return program.live if job.live_steps else 0
    return max(program.live, job.live_steps) if job.to_the_end else program.live or job.live_steps


def _told(debugger: Any, report: Any) -> list[Found]:
    """All that was said: as the debugger ranks it now, then what is gone."""
    ranked = debugger.findings
    left = {each.cause for each in ranked}
    early = {each.cause for each in report.findings}
    every = debugger._journal.findings  # what is gone included
    first = {each.cause: each.step for each in reversed(every)}
    gone = {each.cause: each for each in every if each.cause not in left}
    return [
        _found(each, live=each.cause not in early, step=first.get(each.cause, each.step), gone=each.cause not in left)
        for each in (*ranked, *gone.values())
    ]


def _found(finding: Any, **more: Any) -> Found:
    sure = finding.confidence if finding.rule_confidence is None else finding.rule_confidence
    return Found(str(finding.cause), str(finding.severity), float(sure), finding.title, source=finding.source, **more)


def _checked(result: Any) -> Checked:
    measured = tuple(
        Measured(each.name, float(each.value), each.parameter, each.threshold, each.above) for each in result.measured
    )
    causes = tuple(dict.fromkeys(str(f.cause) for f in result.findings if str(f.severity) in ("warning", "critical")))
    return Checked(result.name, str(result.outcome), result.seconds, measured, causes, result.why)
