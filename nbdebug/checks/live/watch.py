"""Makes the live checks again and again, and says what is new: found, gone, back. Training thread; no torch.

A finding is told once it was found several times in a row (see :class:`LiveCheck`), and once more when it comes back
after it was gone, or has become worse for as long. When it is made, and on what, depends on steps alone, so that a
rerun finds the same. A branch begins with what stood where it left its parent: that is not told again, and may go.
"""

from __future__ import annotations

import traceback
from collections.abc import Collection
from dataclasses import dataclass, field, replace

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.registry import live_checks
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameters
from nbdebug.records.checks import CheckOutcome, CheckResult
from nbdebug.records.findings import Cause, Finding, Gone, Severity

FIRST_STEPS = (5, 10, 20, 30, 45)
EVERY = 25  # steps, after those
MOST_RUNS = 64  # whose state is kept
GRAVITY = {severity: place for place, severity in enumerate(Severity)}


def is_due(step: int) -> bool:
    """Whether a judgement belongs to this step."""
    return step in FIRST_STEPS or (step > FIRST_STEPS[-1] and step % EVERY == 0)


@dataclass(slots=True)
class _Standing:
    """How a cause stands: how often in a row it was found or not, whether it was told, since and till when seen.

    ``severity`` is what it was told as, ``worse`` how often in a row it was found worse than that.
    """

    found: int = 0
    missed: int = 0
    told: bool = False
    judged_at: int = -1
    first: int = 0
    last: int = 0
    severity: Severity = Severity.INFO
    worse: int = 0

    @staticmethod
    def inherited(finding: Finding, step: int) -> _Standing:
        """Of one that was told, and stood after so many steps."""
        return _Standing(told=True, first=finding.since, last=max(finding.step, step), severity=finding.severity)

    def judged(self, step: int, finding: Finding | None) -> None:
        """Count what a judgement came to."""
        self.judged_at = step
        self.found = self.found + 1 if finding is not None else 0
        self.missed = 0 if finding is not None else self.missed + 1
        is_worse = finding is not None and GRAVITY[finding.severity] > GRAVITY[self.severity]
        self.worse = self.worse + 1 if is_worse else 0
        if finding is not None:
            self.first, self.last = step if self.found == 1 else self.first, step

    def is_news(self, wanted: int) -> bool:
        """Whether it was found, or found worse than was told, so often in a row."""
        return (self.worse if self.told else self.found) >= wanted


@dataclass(slots=True)
class Watch:
    """The live checks on one run. ``results`` are those of the latest judgement; ``gone`` is what it found no more."""

    checks: tuple[LiveCheck, ...] = field(default_factory=live_checks)
    results: tuple[CheckResult, ...] = ()
    gone: tuple[Gone, ...] = ()
    run: str = ""
    _of_runs: dict[str, dict[tuple[str, Cause], _Standing]] = field(default_factory=dict)
    _broken: set[str] = field(default_factory=set)

    def begin(self, run: str, standing: Collection[Finding] = (), *, step: int = 0) -> None:
        """Judge this run from now on; ``standing`` is what was told before it left its parent, after ``step`` steps.

        One that was judged before is gone on with as it was.
        """
        self.run, self.results, self.gone = run, (), ()
        if run not in self._of_runs:
            inherited = {(each.check, each.cause): _Standing.inherited(each, step) for each in standing}
            self._of_runs = dict([*self._of_runs.items(), (run, inherited)][-MOST_RUNS:])

    def judge(self, window: Window, parameters: Parameters) -> list[Finding]:
        """Make every check on this window; what is to be said now."""
        if window.run != self.run:
            self.begin(window.run)
        news: list[Finding] = []
        results: list[CheckResult] = []
        gone: list[Gone] = []
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
        self, check: LiveCheck, window: Window, findings: tuple[Finding, ...], gone: list[Gone]
    ) -> list[Finding]:
        """Those findings that are to be told now."""
        by_cause = {finding.cause: finding for finding in findings}
        news = []
        for cause in check.causes:
            standing = self._of_runs[self.run].setdefault((check.name, cause), _Standing())
            if standing.judged_at == window.step:
                continue
            finding = by_cause.get(cause)
            standing.judged(window.step, finding)
            if finding is not None and standing.is_news(_wanted(check, finding)):
                standing.told, standing.severity, standing.worse = True, finding.severity, 0
                place = replace(finding, run=window.run, step=window.step, first_step=standing.first)
                news.append(replace(place, check=check.name))
            elif standing.told and standing.missed >= check.persistence:
                standing.told = False
                gone.append(Gone(window.run, window.step, cause, check.name, standing.last))
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
