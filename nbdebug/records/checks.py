"""What became of the checks: a checklist, with the values that were measured, and what was found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from html import escape
from typing import Any

from nbdebug.records import finding_text
from nbdebug.records.findings import Cause, Evidence, Finding, Severity
from nbdebug.records.stops import BatchView

AT_LENGTH = 3  # findings in full; the rest are named
CALLED_OFF = "called off"


class CheckOutcome(StrEnum):
    """What a check came to; ``BROKE`` says that it raised an error itself."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"
    BROKE = "broke"


SIGNS = {
    CheckOutcome.PASSED: "✓",
    CheckOutcome.FAILED: "✗",
    CheckOutcome.SKIPPED: "–",
    CheckOutcome.BROKE: "!",
}


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: ``why`` it was skipped or what it saw, in words; all it ``measured``, also where nothing was wrong."""

    name: str
    title: str
    outcome: CheckOutcome
    why: str = ""
    seconds: float = 0.0
    measured: tuple[Evidence, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """A battery of checks: ``findings`` ranked, the most likely cause first, symptoms after what explains them.

    ``notes`` say what was sampled, and what could not be put back; ``batch`` is one as the model sees it. Prints as
    text, and shows as a table in a notebook.
    """

    results: tuple[CheckResult, ...]
    findings: tuple[Finding, ...]
    run: str = ""
    step: int = 0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    batch: BatchView | None = None

    @property
    def causes(self) -> tuple[str, ...]:
        """The causes found, as texts, the most likely first."""
        return tuple(str(finding.cause) for finding in self.findings)

    @property
    def sentence(self) -> str:
        """What the checks came to, in one line."""
        amounts = {outcome: len(self.of(outcome)) for outcome in CheckOutcome}
        told = ", ".join(f"{count} {outcome}" for outcome, count in amounts.items() if count)
        return f"{len(self.results)} checks in {self.seconds:.1f} s: {told or 'none'}"

    @property
    def was_called_off(self) -> bool:
        """Whether somebody ended it before all checks were made."""
        return any(each.outcome is CheckOutcome.SKIPPED and each.why == CALLED_OFF for each in self.results)

    def of(self, outcome: CheckOutcome) -> tuple[CheckResult, ...]:
        """The checks that came to this."""
        return tuple(result for result in self.results if result.outcome is outcome)

    def worse_than(self, severity: Severity) -> tuple[Finding, ...]:
        """The findings of this severity or a worse one."""
        ranks = list(Severity)
        return tuple(each for each in self.findings if ranks.index(each.severity) >= ranks.index(severity))

    def to_json(self) -> str:
        """All of it as JSON; numbers that JSON has not (NaN, infinities) as texts."""
        return json.dumps(_plain(asdict(replace(self, batch=None))), indent=1)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield self.sentence
        first, others = self._in_order()
        for finding in first:
            yield ""
            yield from finding_text.lines(finding)
        if others:
            yield ""
            yield f"{len(others)} more in .findings: {'; '.join(f'{each.title} [{each.cause}]' for each in others)}"
        yield ""
        width = max((len(result.title) for result in self.results), default=0)
        for result in self.results:
            yield f"{SIGNS[result.outcome]} {result.title:<{width}}  {result.why}".rstrip()
        yield from (f"note: {note}" for note in self.notes)

    def _in_order(self) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
        """Those to be told at length, and others; what one of them explains is told with it, and is in neither."""
        explained = {title for finding in self.findings for title in finding.folded}
        roots = tuple(finding for finding in self.findings if finding.title not in explained)
        return roots[:AT_LENGTH], roots[AT_LENGTH:]

    def _repr_html_(self) -> str:
        first, others = self._in_order()
        cards = "".join(finding_text.html(finding) for finding in first)
        if others:
            rest = "".join(finding_text.html(finding) for finding in others)
            cards += f"<details><summary>{len(others)} more</summary>{rest}</details>"
        rows = "".join(
            f"<tr><td>{SIGNS[each.outcome]} {each.outcome}</td><td style='text-align:left'>{escape(each.title)}</td>"
            f"<td style='text-align:left'>{escape(each.why)}</td><td>{each.seconds:.2f} s</td></tr>"
            for each in self.results
        )
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        return (
            f"<div><p><b>{escape(self.sentence)}</b></p>{cards}"
            f"<details><summary>all checks</summary><table>{rows}</table></details><ul>{notes}</ul></div>"
        )


def _plain(value: Any) -> Any:
    """What JSON can hold."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, Cause | Severity | CheckOutcome):
        return str(value)
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else repr(value)
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return value if isinstance(value, (str, int, bool, type(None))) else str(value)
