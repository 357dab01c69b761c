"""Makes the live checks again and again, and says what is new: found, gone, back. Training thread; no torch.

A finding is told once it was found several times in a row (see :class:`LiveCheck`), and once more when it comes back
after it was gone. When it is made, and on what, depends on steps alone, so that a rerun finds the same.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field, replace

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.records.findings import Cause, Finding, Severity

FIRST_STEPS = (5, 10, 20, 30, 45)
EVERY = 25  # steps, after those


def is_due(step: int) -> bool:
    """Whether a judgement belongs to this step."""
    return step in FIRST_STEPS or (step > FIRST_STEPS[-1] and step % EVERY == 0)


@dataclass(slots=True)
class _Standing:
    """How a cause stands: how often in a row it was found or not, and whether it was told."""

    found: int = 0
    missed: int = 0
    told: bool = False
    judged_at: int = -1


@dataclass(slots=True)
class Watch:
    """The live checks on one run. ``results`` are those of the latest judgement, ``broken`` what raised an error."""

    checks: tuple[LiveCheck, ...] = field(default_factory=live_checks)
    results: tuple[CheckResult, ...] = ()
    gone: tuple[Cause, ...] = ()
    _standing: dict[tuple[str, Cause], _Standing] = field(default_factory=dict)
    _broken: set[str] = field(default_factory=set)
    _run: str = ""

    def judge(self, window: Window, parameters: Parameters) -> list[Finding]:
        """Make every check on this window; what is to be said now."""
        if window.run != self._run:
            self._run, self._standing = window.run, {}
        news: list[Finding] = []
        results: list[CheckResult] = []
        gone: list[Cause] = []
        for check in self.checks:
            if check.name in self._broken:
                continue
            say = Say(parameters, window.run, window.step, check.source)
            result = self._make(check, window, say)
            results.append(result)
            if result.outcome is CheckOutcome.BROKE:
                self._broken.add(check.name)
                news += result.findings
            elif result.outcome is not CheckOutcome.SKIPPED:
                news += self._heard(check, window, result.findings, gone)
        self.results, self.gone = tuple(results), tuple(gone)
        return news

    def _make(self, check: LiveCheck, window: Window, say: Say) -> CheckResult:
        outcome, why = CheckOutcome.PASSED, ""
        found: tuple[Finding, ...] = ()
        try:
            if window.step - window.since_change < check.steps:
                raise Skip(f"judged from {check.steps} steps on")
            check.judge(window, say)
            found = tuple(say.findings)
            outcome = CheckOutcome.FAILED if found else CheckOutcome.PASSED
        except Skip as reason:
            outcome, why = CheckOutcome.SKIPPED, str(reason)
        except Exception as error:  # a check meets any run there is; it is left out from now on, and training goes on
            outcome, why = CheckOutcome.BROKE, f"{type(error).__name__}: {error}"
            found = (_disabled(check, window),)
        text = "; ".join(part for part in (why, *say.notes) if part)
        return CheckResult(check.name, check.title, outcome, text, 0.0, tuple(say.measured), found)

    def _heard(
        self, check: LiveCheck, window: Window, findings: tuple[Finding, ...], gone: list[Cause]
    ) -> list[Finding]:
        """Those findings that are to be told now."""
        by_cause = {finding.cause: finding for finding in findings}
        news = []
        for cause in check.causes:
            standing = self._standing.setdefault((check.name, cause), _Standing())
            if standing.judged_at == window.step:
                continue
            standing.judged_at = window.step
            finding = by_cause.get(cause)
            standing.found = standing.found + 1 if finding is not None else 0
            standing.missed = standing.missed + 1 if finding is None else 0
            if finding is not None and not standing.told and standing.found >= _wanted(check, finding):
                standing.told = True
                news.append(replace(finding, run=window.run, step=window.step))
            elif standing.told and standing.missed >= check.persistence:
                standing.told = False
                gone.append(cause)
        return news


def _wanted(check: LiveCheck, finding: Finding) -> int:
    """How often in a row it must be found; what is beyond doubt and critical is told at once."""
    return 1 if finding.severity is Severity.CRITICAL and finding.confidence >= 0.99 else check.persistence


def _disabled(check: LiveCheck, window: Window) -> Finding:
    title = f"The check {check.name} was not possible"
    why = f"“{check.title}” raised an error on this run, and is left out. Training is not affected."
    return Finding(
        Cause.CHECK_DISABLED, Severity.INFO, window.run, window.step, title, why, traceback.format_exc(limit=20)
    )
