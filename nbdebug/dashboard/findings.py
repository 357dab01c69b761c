"""The findings' cards, as the browser is to show them. Pure; drawing thread.

A card stays the same while nothing new is known of its finding: what changes all the time, such as what a trial would
take now, stands beside the cards.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Final, get_args

from nbdebug.dashboard import checks, origin, trials, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.records.commands import Mendable
from nbdebug.records.findings import Course, Finding, Picture, Remedy, Severity, Spell
from nbdebug.records.stops import CodeLine
from nbdebug.records.view import View

RANK = {Severity.CRITICAL: 0, Severity.WARNING: 1, Severity.INFO: 2}
MOST_CARDS: Final = 30
FIRST_CARDS: Final = 3
MOST_GONE = 30
LONGEST_DETAIL = 20_000
MOST_LAYERS = 6
MOST_LIT = 5_000
MOST_ROWS, MOST_COLUMNS = 12, 64
SURENESS = ((0.995, "beyond doubt"), (0.95, "almost certain"), (0.8, "very likely"), (0.6, "likely"), (0.0, "possible"))


def state(findings: Sequence[Finding], view: View | None = None) -> Json:
    """A summary, and a card per finding in the order given, the worst first; what one explains is within its card.

    ``first`` says how many are to be seen at once; the rest is folded away, and so is what is ``gone``. ``view`` has
    the runs' titles, what became of each finding, and which remedies were tried.
    """
    ranked = once(sorted(findings, key=lambda each: RANK[each.severity]))
    courses = {_key(each.finding): each for each in (view.courses if view else ())}
    within = _within(ranked)
    explained = {id(each) for symptoms in within.values() for each in symptoms}

    def card(finding: Finding) -> Json:
        symptoms = [card(each) for each in within.get(id(finding), ())]
        return _card(finding, courses.get(_key(finding)), view) | {"symptoms": symptoms}

    roots = [each for each in ranked if id(each) not in explained][:MOST_CARDS]
    shown = {_key(each) for each in ranked}
    gone = [each for each in courses.values() if not each.stands and _key(each.finding) not in shown]
    return {
        "summary": summary(ranked),
        "first": FIRST_CARDS,
        "cards": [card(each) for each in roots],
        "gone": [_gone(each, view) for each in _past(gone, shown, view)[-MOST_GONE:]],
        **trials.state(view),
    }


def summary(findings: Sequence[Finding]) -> str:
    """``1 critical, 2 warnings``."""
    amounts = {severity: sum(finding.severity is severity for finding in findings) for severity in RANK}
    texts = {
        Severity.CRITICAL: f"{amounts[Severity.CRITICAL]} critical",
        Severity.WARNING: words.plural(amounts[Severity.WARNING], "warning"),
        Severity.INFO: words.plural(amounts[Severity.INFO], "note"),
    }
    return ", ".join(texts[severity] for severity in RANK if amounts[severity])


def once(findings: Sequence[Finding]) -> list[Finding]:
    """Without repeats: of what happened several times under one title, the latest."""
    latest: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        key = (str(finding.cause), finding.title)
        if key not in latest or finding.step >= latest[key].step:
            latest[key] = finding
    return list(latest.values())


def sureness(confidence: float) -> str:
    """How sure, in words and in per cent: ``very likely, 85 %``."""
    word = next(word for limit, word in SURENESS if confidence >= limit)
    return word if confidence >= SURENESS[0][0] else f"{word}, {100 * confidence:.0f} %"


def _within(ranked: Sequence[Finding]) -> dict[int, list[Finding]]:
    """By each root, what it explains; what several explain is with the first of them."""
    taken: set[int] = set()
    within: dict[int, list[Finding]] = {}
    for root in ranked:
        for each in ranked:
            if each.title in root.folded and each is not root and not each.folded and id(each) not in taken:
                taken.add(id(each))
                within.setdefault(id(root), []).append(each)
    return within


def _key(finding: Finding) -> str:
    """By what a card is known again: its cause; of what merely happened, its title as well."""
    return str(finding.cause) if finding.by else f"{finding.cause} {finding.title}"


def _card(finding: Finding, course: Course | None, view: View | None) -> Json:
    detail = finding.detail
    if len(detail) > LONGEST_DETAIL:
        detail = "…\n" + detail[-LONGEST_DETAIL:]
    return {
        "key": _key(finding),
        "severity": str(finding.severity),
        "title": finding.title,
        "why": finding.why,
        "detail": detail,
        "where": _where(finding, course, view),
        "origin": origin.state(finding.origin),
        "layers": _layers(finding.layers),
        "evidence": [checks.evidence(each) for each in finding.evidence],
        "pictures": [picture(each) for each in finding.pictures],
        "remedies": _remedies(finding, view),
        "cause": str(finding.cause),
        "code": _code(finding.line),
        "source": finding.source,
        "sure": sureness(finding.confidence) if finding.source else "",
        "lit": _lit(finding, course),
    }


def _past(gone: Sequence[Course], shown: Collection[str], view: View | None) -> list[Course]:
    """What is gone, and what the branch in the model was made to mend: its parent had that, later than they parted."""
    told = {*shown, *(_key(each.finding) for each in gone)}
    mended = {_key(each.finding): each.finding for each in trials.applied(view)}
    others = [each for key, each in mended.items() if key not in told]
    return [*gone, *(Course(each, (Spell(each.run, each.since, each.step),)) for each in others)]


def _gone(course: Course, view: View | None) -> Json:
    cause = str(course.finding.cause)
    applied = [each for each in trials.applied(view) if str(each.finding.cause) == cause]
    return {
        "key": f"gone {_key(course.finding)}",
        "cause": cause,
        "mended": f"Mended: {applied[-1].remedy.text}" if applied else "",
        "proof": trials.proof(view, cause, applied[-1].rung) if applied and view is not None else None,
        "title": course.finding.title,
        "severity": str(course.finding.severity),
        "where": str(course),
        "lit": _lit(course.finding, course),
    }


def _where(finding: Finding, course: Course | None, view: View | None) -> str:
    """Since when; of what merely happened, in which run, at which step."""
    if course is not None and finding.by:
        return str(course)
    titles = {run.run.name: run.run.shown for run in view.runs} if view else {}
    return f"{titles.get(finding.run, finding.run)}, step {words.count(finding.step)}"


def _lit(finding: Finding, course: Course | None) -> Json:
    """The layers and steps that a card lights: of a spell that lasts, the end is open."""
    spells = [[each.first, each.last] for each in course.spells] if course and finding.by else []
    layers = [layer for layer in finding.layers if layer][:MOST_LIT]
    return {"layers": layers, "spells": spells or [[finding.since, finding.step]]}


def _layers(layers: Sequence[str]) -> str:
    named = [layer or "the model itself" for layer in layers[:MOST_LAYERS]]
    more = [f"{words.count(len(layers) - MOST_LAYERS)} more"] if len(layers) > MOST_LAYERS else []
    head = "layer" if len(layers) == 1 else "layers"
    return f"{head} {', '.join([*named, *more])}" if layers else ""


def _remedies(finding: Finding, view: View | None) -> Json:
    """With the rung of those that the debugger can do, -1 for what only the user can, and what came of it."""
    able = [isinstance(each.command, get_args(Mendable)) for each in finding.remedies]
    rungs = [sum(able[:place]) if able[place] else -1 for place in range(len(able))]
    return [_remedy(each, rung, finding, view) for each, rung in zip(finding.remedies, rungs, strict=True)]


def _remedy(remedy: Remedy, rung: int, finding: Finding, view: View | None) -> Json:
    proof = trials.proof(view, str(finding.cause), rung) if view is not None and rung >= 0 else None
    return {"text": remedy.text, "code": remedy.code, "rung": rung, "proof": proof}


def _code(line: CodeLine | None) -> Json:
    return {"where": origin.place(line), "file": line.file, "code": line.code} if line is not None else None


def picture(made: Picture) -> Json:
    """Thinned to what a card can show; what is not finite is left out."""
    values = made.values[:MOST_ROWS]
    stride = max(1, -(-values.shape[1] // MOST_COLUMNS)) if values.ndim == 2 else 1
    rows = [[float(f"{value:.4g}") if math.isfinite(value) else None for value in row[::stride]] for row in values]
    return {
        "kind": str(made.kind),
        "title": made.title,
        "values": rows,
        "rows": list(made.rows[:MOST_ROWS]),
        "columns": list(made.columns[::stride]),
    }
