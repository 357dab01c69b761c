"""A finding in words: as lines of text, and as HTML for a cell's output. Pure."""

from __future__ import annotations

import textwrap
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nbdebug.records.findings import Evidence, Finding

WIDTH = 100
NEARLY_SURE = 0.95  # from here on, how sure it is goes without saying


def lines(finding: Finding) -> list[str]:
    """What it is, why, where, by what evidence, and what would mend it."""
    told = [_head(finding), *_wrapped(finding.why)]
    if finding.line is not None:
        told += _wrapped(f"{finding.line.file}:{finding.line.line}  {finding.line.code}")
    told += _wrapped(", ".join(evidence_in_words(each) for each in finding.evidence))
    for place, remedy in enumerate(finding.remedies, 1):
        told += _wrapped(f"{place}. {remedy.text}" + (f"  {remedy.code}" if remedy.code else ""))
    return told + (_wrapped(f"This explains: {'; '.join(finding.folded)}.") if finding.folded else [])


def html(finding: Finding) -> str:
    """The same, folded open."""
    evidence = "".join(f"<li>{escape(evidence_in_words(each))}</li>" for each in finding.evidence)
    remedies = "".join(
        f"<li>{escape(each.text)}" + (f" <code>{escape(each.code)}</code>" if each.code else "") + "</li>"
        for each in finding.remedies
    )
    line = finding.line
    where = f"<div><code>{escape(f'{line.file}:{line.line}  {line.code}')}</code></div>" if line is not None else ""
    explained = f"<p>This explains: {escape('; '.join(finding.folded))}.</p>" if finding.folded else ""
    return (
        f"<details open><summary><b>{escape(finding.title)}</b> · {finding.severity}{escape(_sureness(finding))} · "
        f"{finding.cause}</summary><p>{escape(finding.why)}</p>{where}<ul>{evidence}</ul><ol>{remedies}</ol>"
        f"{explained}</details>"
    )


def evidence_in_words(evidence: Evidence) -> str:
    """``share of zeros: 0.62 (at most 0.4 would be fine)``."""
    limit = ""
    if evidence.threshold is not None:
        limit = f" ({'at most' if evidence.above else 'at least'} {evidence.threshold:.3g} would be fine)"
    return f"{evidence.name}: {evidence.value:.4g}{limit}"


def _head(finding: Finding) -> str:
    return f"{finding.severity.upper()}  {finding.title}  [{finding.cause}{_sureness(finding)}]"


def _sureness(finding: Finding) -> str:
    return f", {finding.confidence:.0%} sure" if finding.source and finding.confidence < NEARLY_SURE else ""


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ") if text else []
