"""When faults were told, and what healthy programs were accused of before and during training. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from tests.zoo.rows import Row
from tests.zoo.score import faulty, healthy, share, table

SOON = 5  # steps after a hard fault


def report(rows: Sequence[Row]) -> str:
    """All tables."""
    rows = [row for row in rows if not row.error]
    return "\n\n".join([_totals(rows), _by_cause(rows), _late(rows), _accusations(rows)])


def steps_to_alarm(row: Row) -> int | None:
    """Steps until the planted cause was told: 0 before training, ``None`` never."""
    return None if row.alarm is None else row.alarm.step if row.alarm.live else 0


def is_hard(row: Row) -> bool:
    """Whether the fault breaks the run: it is critical, or the loss stops being finite."""
    return bool(row.broke) or (row.alarm is not None and row.alarm.severity == "critical")


def delay(row: Row) -> int | None:
    """Of a hard fault, steps from where it breaks the run: its first value that is not finite, else the beginning."""
    steps = steps_to_alarm(row)
    return None if steps is None else max(0, steps - row.broke)


def _totals(rows: Sequence[Row]) -> str:
    hard, clean = [row for row in faulty(rows) if is_hard(row)], healthy(rows)
    trained = sorted(row.live_steps for row in clean if row.live_steps)
    early, late = ([row for row in clean if _accused(row, live=live)] for live in (False, True))
    lines = [
        ["hard faults told within 5 steps", share(sum(_is_soon(row) for row in hard), len(hard))],
        ["healthy programs trained", str(len(trained))],
        ["… steps, median and most", f"{median(trained):.0f}, {trained[-1]}" if trained else "–"],
        ["… until the loss had settled", share(sum(row.settled for row in clean), len(trained))],
        ["… accused before training", share(len(early), len(clean))],
        ["… accused as training went", share(len(late), len(clean))],
    ]
    return table(("", ""), lines)


def _by_cause(rows: Sequence[Row]) -> str:
    lines = []
    for cause in sorted({row.cause for row in faulty(rows)}):
        told = [steps for row in rows if row.cause == cause and (steps := steps_to_alarm(row)) is not None]
        lines.append([f"`{cause}`", len(told), f"{median(told):g}" if told else "–", max(told, default="–")])
    return table(("cause", "told", "median steps to alarm", "most"), lines)


def _late(rows: Sequence[Row]) -> str:
    lines = [
        [row.program, f"`{row.cause}`", row.broke or "the beginning", steps_to_alarm(row)]
        for row in faulty(rows)
        if is_hard(row) and not _is_soon(row)
    ]
    if not lines:
        return "Every hard fault was told within 5 steps."
    return table(("hard faults told later", "planted", "breaks at", "told at"), lines)


def _accusations(rows: Sequence[Row]) -> str:
    lines = [
        [row.program, f"`{each.cause}`", each.severity, f"step {each.step}" if each.live else "before training",
         "yes" if each.gone else ""]
        for row in healthy(rows)
        for each in row.found
        if each.is_loud
    ]  # fmt: skip
    head = ("healthy program", "accused of", "severity", "told", "gone at the end")
    return table(head, lines) if lines else "No healthy program was accused of anything."


def _is_soon(row: Row) -> bool:
    steps = delay(row)
    return steps is not None and steps <= SOON


def _accused(row: Row, *, live: bool) -> bool:
    return any(each.is_loud and each.live is live for each in row.found)
