"""Judges one program: builds it, asks the preflight, and for what shows only live, trains some steps."""

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


def work(job: Job) -> Row:
    """Judge one program, in a child process."""
    return judge(named(job.program), job.seed, live_steps=job.live_steps, sources=sources())


@cache
def sources() -> str:
    """A digest of all that a row depends on: the package and the zoo."""
    digest = hashlib.sha256()
    for path in sorted([*(ROOT / "nbdebug").rglob("*.py"), *(ROOT / "tests" / "zoo").rglob("*.py")]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def judge(program: Program, seed: int, *, live_steps: int = 0, sources: str = "") -> Row:
    """The row of a program: preflight, then as many steps as it says, or ``live_steps`` for a healthy one."""
    began = time.perf_counter()
    steps = program.live or (live_steps if program.healthy else 0)
    model, trainer = program.build(seed)
    debugger = Debugger(model, trainer, journal=None)
    try:
        report = debugger.preflight()
        found = [_found(finding) for finding in report.findings]
        error = ""
        if steps and live_steps:
            error = _trained(debugger, steps)
            found += [_found(each, live=True) for each in debugger.findings if not _is_preflights(each, report)]
    finally:
        debugger.close()
    return Row(
        program.name, seed, str(program.kind), program.cause, program.family, program.also,
        found=tuple(each for each in found if each.cause not in HOUSEKEEPING),
        checks=tuple(_checked(result) for result in report.results),
        preflight_seconds=float(getattr(report, "seconds", sum(result.seconds for result in report.results))),
        seconds=time.perf_counter() - began,
        live_steps=steps if live_steps else 0,
        error=error,
        sources=sources,
    )  # fmt: skip


def _trained(debugger: Any, steps: int) -> str:
    """Train; a fault may end the run early, which is a finding's matter. A healthy run's error is the row's."""
    try:
        debugger.run(steps=steps)
    except Exception as error:
        return "" if debugger.findings else f"{type(error).__name__}: {error}"
    return ""


def _is_preflights(finding: Any, report: Any) -> bool:
    return any(finding is each or finding == each for each in report.findings)


def _found(finding: Any, *, live: bool = False) -> Found:
    confidence = float(getattr(finding, "confidence", 1.0))
    return Found(str(finding.cause), str(finding.severity), confidence, finding.title, live)


def _checked(result: Any) -> Checked:
    measured = tuple(
        Measured(each.name, float(each.value), each.parameter, each.threshold, each.above) for each in result.measured
    )
    causes = tuple(dict.fromkeys(str(f.cause) for f in result.findings if str(f.severity) in ("warning", "critical")))
    return Checked(result.name, str(result.outcome), result.seconds, measured, causes, result.why)
