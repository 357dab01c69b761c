"""The checks' tab: what can be asked for, what is under way, the latest checklist. Pure; drawing thread."""

from __future__ import annotations

from typing import Final

from nbdebug.dashboard import ability, tree, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.checks import SIGNS, CheckOutcome, CheckResult, Report
from nbdebug.records.commands import RunPreflight
from nbdebug.records.findings import Evidence
from nbdebug.records.view import View

CHECKS_TAB: Final = "checks"
ACTIVITY: Final = "checks before training"
HINT: Final = "The first steps of training are looked at by themselves. All checks also take steps on the side."
ORDER = {CheckOutcome.FAILED: 0, CheckOutcome.BROKE: 1, CheckOutcome.PASSED: 2, CheckOutcome.SKIPPED: 3}


def state(view: View) -> Json:
    """The button, and the latest report's checklist: what failed first."""
    report, doing = view.report, view.status.activity
    return {
        "blocked": ability.blocked(view),
        "stored": view.stored,
        "hint": HINT,
        "doing": doing if doing.startswith(ACTIVITY) else "",
        "refusal": _refusal(view),
        "sentence": report.sentence if report is not None else "",
        "where": _where(view, report) if report is not None else "",
        "notes": list(report.notes) if report is not None else [],
        "rows": [_row(each) for each in _ordered(report)],
    }


def _where(view: View, report: Report) -> str:
    return f"at step {words.count(report.step)} of {tree.shown(view, report.run)}" if report.run else ""


def _ordered(report: Report | None) -> list[CheckResult]:
    return sorted(report.results, key=lambda each: ORDER[each.outcome]) if report is not None else []


def _row(result: CheckResult) -> Json:
    return {
        "name": result.name,
        "title": result.title,
        "outcome": str(result.outcome),
        "sign": SIGNS[result.outcome],
        "why": "; ".join([*(each.title for each in result.findings), *([result.why] if result.why else [])]),
        "took": f"{result.seconds:.2f} s" if result.seconds >= 0.005 else "",
        "measured": [evidence(each) for each in result.measured],
    }


def evidence(each: Evidence) -> Json:
    """A measured value beside its threshold, in words."""
    limit = ""
    if each.threshold is not None:
        limit = f"{'at most' if each.above else 'at least'} {words.number(each.threshold)}"
    return {
        "name": each.name,
        "value": words.number(each.value),
        "limit": limit,
        "bad": each.speaks_for_a_fault,
        "parameter": each.parameter,
    }


def _refusal(view: View) -> str:
    """Why the latest checks asked for came to nothing; empty if they did not."""
    asked = next((each for each in reversed(view.outcomes) if isinstance(each.command, RunPreflight)), None)
    return asked.text if asked is not None and not asked.ok else ""
