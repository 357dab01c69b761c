"""The findings' cards, as the browser is to show them. Pure; drawing thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nbdebug.dashboard import origin, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.findings import Finding, Severity

RANK = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
MOST_CARDS = 30
LONGEST_DETAIL = 20_000


def state(findings: Sequence[Finding], titles: Mapping[str, str] | None = None) -> Json:
    """A summary, and a card per finding: the worst first, among equals the latest. ``titles``: the runs', by name."""
    ranked = sorted(enumerate(findings), key=lambda pair: (RANK[pair[1].severity], -pair[0]))
    return {"summary": summary(findings), "cards": [_card(each, titles or {}) for _, each in ranked[:MOST_CARDS]]}


def summary(findings: Sequence[Finding]) -> str:
    """``1 critical, 2 warnings``."""
    amounts = {severity: sum(finding.severity is severity for finding in findings) for severity in RANK}
    texts = {
        Severity.CRITICAL: f"{amounts[Severity.CRITICAL]} critical",
        Severity.WARNING: words.plural(amounts[Severity.WARNING], "warning"),
        Severity.INFO: words.plural(amounts[Severity.INFO], "note"),
    }
    return ", ".join(texts[severity] for severity in RANK if amounts[severity])


def _card(finding: Finding, titles: Mapping[str, str]) -> Json:
    detail = finding.detail
    if len(detail) > LONGEST_DETAIL:
        detail = "…\n" + detail[-LONGEST_DETAIL:]
    return {
        "severity": str(finding.severity),
        "title": finding.title,
        "why": finding.why,
        "detail": detail,
        "where": f"{titles.get(finding.run, finding.run)}, step {words.count(finding.step)}",
        "origin": origin.state(finding.origin),
    }
