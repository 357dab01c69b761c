"""The findings' cards, as the browser is to show them. Pure; drawing thread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, get_args

from nbdebug.dashboard import checks, origin, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import Mendable
from nbdebug.records.findings import Finding, Picture, Remedy, Severity
from nbdebug.records.stops import CodeLine

RANK = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
MOST_CARDS: Final = 30
FIRST_CARDS: Final = 3
LONGEST_DETAIL = 20_000
MOST_LAYERS = 6
MOST_ROWS, MOST_COLUMNS = 12, 64


def state(findings: Sequence[Finding], titles: Mapping[str, str] | None = None) -> Json:
    """A summary, and a card per finding in the order given, the worst first. ``titles``: the runs', by name.

    ``first`` says how many are to be seen at once; the rest is folded away.
    """
    ranked = sorted(findings, key=lambda each: RANK[each.severity])
    explained = {title for finding in ranked for title in finding.folded}
    roots = [each for each in ranked if each.title not in explained]
    shown = [*roots, *(each for each in ranked if each.title in explained)][:MOST_CARDS]
    cards = [_card(each, titles or {}) for each in shown]
    return {"summary": summary(findings), "first": min(FIRST_CARDS, max(len(roots), 1)), "cards": cards}


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
        "layers": _layers(finding.layers),
        "evidence": [checks.evidence(each) for each in finding.evidence],
        "pictures": [_picture(each) for each in finding.pictures],
        "remedies": _remedies(finding.remedies),
        "cause": str(finding.cause),
        "code": _code(finding.line),
        "source": finding.source,
        "sure": _sureness(finding),
        "folded": list(finding.folded),
    }


def _sureness(finding: Finding) -> str:
    """Said only where there is room for doubt."""
    return f"{finding.confidence:.0%} sure" if finding.source and finding.confidence < 0.95 else ""


def _layers(layers: Sequence[str]) -> str:
    named = [layer or "the model itself" for layer in layers[:MOST_LAYERS]]
    more = [f"{words.count(len(layers) - MOST_LAYERS)} more"] if len(layers) > MOST_LAYERS else []
    head = "layer" if len(layers) == 1 else "layers"
    return f"{head} {', '.join([*named, *more])}" if layers else ""


def _remedies(remedies: Sequence[Remedy]) -> Json:
    """With the rung of those that the debugger can do, -1 for what only the user can."""
    able = [isinstance(each.command, get_args(Mendable)) for each in remedies]
    return [
        {"text": each.text, "code": each.code, "rung": sum(able[:place]) if able[place] else -1}
        for place, each in enumerate(remedies)
    ]


def _code(line: CodeLine | None) -> Json:
    return {"where": origin.place(line), "file": line.file, "code": line.code} if line is not None else None


def _picture(picture: Picture) -> Json:
    """Thinned to what a card can show; what is not finite is left out."""
    values = picture.values[:MOST_ROWS]
    stride = max(1, -(-values.shape[1] // MOST_COLUMNS)) if values.ndim == 2 else 1
    rows = [[float(f"{value:.4g}") if math.isfinite(value) else None for value in row[::stride]] for row in values]
    return {
        "kind": str(picture.kind),
        "title": picture.title,
        "values": rows,
        "rows": list(picture.rows[:MOST_ROWS]),
        "columns": list(picture.columns[::stride]),
    }
