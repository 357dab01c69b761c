"""How well thresholds carry over: chosen on all network families but one, judged on that one. Pure, over stored rows.

A check is taken to accuse where values of each (or of any) of its parameters are on the wrong side; which of the two
fits, the stored rows tell. A check that neither fits keeps what it said, and is named as such.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tests.zoo.rows import Checked, Found, Measured, Row
from tests.zoo.score import Tally, accused, faulty, healthy, table

ROUNDS = 2


@dataclass(frozen=True)
class Rule:
    """How parameters make a check's verdict: ``every`` or any one on the wrong side; ``None``: not by them alone."""

    check: str
    every: bool | None
    parameters: frozenset[str]
    causes: frozenset[str]


@dataclass(frozen=True)
class Fold:
    """A family that was left out: the thresholds chosen without it, and its rows judged with them."""

    family: str
    thresholds: Mapping[str, float]
    before: tuple[Row, ...]
    after: tuple[Row, ...]


def folds(rows: Sequence[Row]) -> list[Fold]:
    """One for each network family."""
    rows = [row for row in rows if not row.error]
    rules, shipped = rules_of(rows), shipped_thresholds(rows)
    made = []
    for family in sorted({row.family for row in rows}):
        mine = tuple(row for row in rows if row.family == family)
        chosen = choose([row for row in rows if row.family != family], rules, shipped)
        made.append(Fold(family, chosen, mine, tuple(rejudged(row, rules, chosen) for row in mine)))
    return made


def shipped_thresholds(rows: Iterable[Row]) -> dict[str, float]:
    """Each parameter's value as it was when the rows were made."""
    return {m.parameter: m.threshold for m in _measurements(rows) if m.parameter and m.threshold is not None}


def rules_of(rows: Sequence[Row]) -> dict[str, Rule]:
    """For each check, the reading of its parameters that gives every verdict as it was stored."""
    shipped = shipped_thresholds(rows)
    made = {}
    for name in sorted({check.name for row in rows for check in row.checks}):
        checks = [check for row in rows for check in row.checks if check.name == name and check.outcome != "skipped"]
        parameters = frozenset(m.parameter for check in checks for m in check.measured if m.parameter)
        causes = frozenset(cause for check in checks for cause in check.causes)
        fits = [every for every in (True, False) if all(accuses(c, every, shipped) == bool(c.causes) for c in checks)]
        ways = {(m.parameter, m.above) for check in checks for m in check.measured if m.parameter}
        # Which of several causes it is, thresholds do not tell; nor which of two ways a parameter is meant.
        is_one = bool(parameters) and len(causes) == 1 and len(ways) == len(parameters)
        made[name] = Rule(name, fits[0] if fits and is_one else None, parameters, causes)
    return made


def accuses(check: Checked, every: bool, thresholds: Mapping[str, float]) -> bool:
    """Whether a check speaks up with these thresholds, by what it measured."""
    crossed: dict[str, bool] = {}
    for m in check.measured:
        if m.parameter:
            limit = thresholds.get(m.parameter, m.threshold)
            over = limit is not None and (m.value > limit if m.above else m.value < limit)
            crossed[m.parameter] = crossed.get(m.parameter, False) or over
    return bool(crossed) and (all if every else any)(crossed.values())


def choose(rows: Sequence[Row], rules: Mapping[str, Rule], shipped: Mapping[str, float]) -> dict[str, float]:
    """Thresholds, one after the other, a few rounds: fewest false alarms, then most found, then nearest to shipped."""
    chosen = dict(shipped)
    for _ in range(ROUNDS):
        before = dict(chosen)
        for name in shipped:
            mine = [rule for rule in rules.values() if name in rule.parameters and rule.every is not None]
            if mine:
                chosen[name] = _best(rows, mine, name, chosen, shipped[name])
        if chosen == before:
            break
    return chosen


def _best(
    rows: Sequence[Row], rules: Sequence[Rule], name: str, thresholds: Mapping[str, float], shipped: float
) -> float:
    """The value of one parameter, with the others as they are, that does best on these rows."""
    cases = [case for rule in rules for row in rows for case in _cases(row, rule, name, thresholds)]
    if not cases:
        return thresholds[name]
    values = np.array(candidates([case.value for case in cases], shipped))
    value, above = np.array([case.value for case in cases]), np.array([case.above for case in cases])
    over = np.where(above[:, None], value[:, None] > values, value[:, None] < values)
    every, others = (np.array([getattr(case, key) for case in cases])[:, None] for key in ("every", "others"))
    speaks = np.where(every, over & others, over | others)
    alarms = speaks[np.array([case.healthy for case in cases])].sum(0)
    found = speaks[np.array([case.planted for case in cases])].sum(0)
    distance = [abs(_log(each) - _log(shipped)) for each in values]
    return float(min(zip(alarms, -found, distance, values, strict=True))[3])


@dataclass(frozen=True)
class Case:
    """A check on a row: the parameter's most telling value, and whether the check's ``others`` are crossed."""

    value: float
    above: bool
    every: bool
    others: bool
    healthy: bool
    planted: bool


def _cases(row: Row, rule: Rule, name: str, thresholds: Mapping[str, float]) -> Iterator[Case]:
    for check in row.checks:
        mine = [m for m in check.measured if m.parameter == name]
        if check.name == rule.check and mine:
            rest = replace(check, measured=tuple(m for m in check.measured if m.parameter not in ("", name)))
            others = accuses(rest, bool(rule.every), thresholds) if rest.measured else bool(rule.every)
            value = (max if mine[0].above else min)(m.value for m in mine)
            planted = row.cause in rule.causes
            yield Case(value, mine[0].above, bool(rule.every), others, not row.cause, planted)


def candidates(values: Iterable[float], shipped: float) -> list[float]:
    """The shipped value, and one between each two neighbours among the measured ones."""
    known = sorted({value for value in values if math.isfinite(value)})
    return [shipped, *(_between(low, high) for low, high in pairwise(known))]


def rejudged(row: Row, rules: Mapping[str, Rule], thresholds: Mapping[str, float]) -> Row:
    """The row as if its checks had gone by these thresholds: names that fall away or come, at their places or last."""
    lost: set[str] = set()
    gained: list[str] = []
    kept: set[str] = set()
    for check in row.checks:
        rule = rules[check.name]
        if rule.every is None or check.outcome == "skipped":
            kept |= set(check.causes)
        elif accuses(check, rule.every, thresholds):
            kept |= rule.causes
            gained += [cause for cause in rule.causes if cause not in row.loud]
        else:
            lost |= set(check.causes)
    found = [each for each in row.found if each.cause not in lost - kept]
    return replace(row, found=(*found, *(Found(cause, "warning") for cause in gained)))


def report(rows: Sequence[Row]) -> str:
    """The tables: each family left out in turn, then what was chosen where it differs from what is shipped."""
    made = folds(rows)
    lines = []
    for fold in made:
        before, after = Tally.of(faulty(fold.before)), Tally.of(faulty(fold.after))
        clean = len(healthy(fold.before))
        lines.append(
            [fold.family, before.planted, before.found, after.found, after.first, after.in_three, clean,
             len(accused(fold.before)), len(accused(fold.after))]
        )  # fmt: skip
    lines.append(["all", *(sum(int(line[i]) for line in lines) for i in range(1, 9))])
    head = ("family left out", "planted", "found as shipped", "found", "found first", "in the first three", "healthy",
            "with a warning as shipped", "with a warning")  # fmt: skip
    return "\n\n".join([table(head, lines), _thresholds(rows, made), _fixed(rules_of(rows))])


def _thresholds(rows: Sequence[Row], made: Sequence[Fold]) -> str:
    shipped = shipped_thresholds([row for row in rows if not row.error])
    lines = []
    for name in sorted(shipped):
        chosen = [fold.thresholds[name] for fold in made]
        if any(value != shipped[name] for value in chosen):
            lines.append([f"`{name}`", f"{shipped[name]:.4g}", f"{min(chosen):.4g} … {max(chosen):.4g}"])
    return table(("parameter", "shipped", "chosen"), lines) if lines else "Every fold chose the thresholds as shipped."


def _fixed(rules: Mapping[str, Rule]) -> str:
    fixed = [f"`{rule.check}`" for rule in rules.values() if rule.every is None and rule.parameters and rule.causes]
    kept = ", ".join(fixed) if fixed else "none"
    return f"Checks whose verdict does not follow from single thresholds, and which keep what they said: {kept}."


def _measurements(rows: Iterable[Row]) -> Iterator[Measured]:
    for row in rows:
        for check in row.checks:
            yield from check.measured


def _between(low: float, high: float) -> float:
    """Halfway on a log scale where both have one sign, else on a plain one."""
    return math.copysign(math.sqrt(low * high), low) if low * high > 0 else (low + high) / 2


def _log(value: float) -> float:
    return math.log(abs(value)) if value else -745.0
