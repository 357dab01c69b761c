"""Fits how sure findings are to how often they are right, and says how well that holds for families left out. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nbdebug.checks.calibration import DOUBT, Calibration, Known, log_odds
from nbdebug.checks.ranking import EXPLAINS
from nbdebug.records.findings import Cause
from tests.zoo.rows import Row
from tests.zoo.score import table

EDGES = (0.0, 0.5, 0.7, 0.8, 0.88, 0.93, 0.96, 1.01)  # of stated confidence, for the curve's points
BELIEF = 2.0  # how many findings what a rule says weighs as much as, at each point
STATED = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.01)  # of the table's rows
CATALOGUE = list(Cause)
SYMPTOMS = frozenset(CATALOGUE[CATALOGUE.index(Cause.PARAMETERS_NOT_UPDATING) : CATALOGUE.index(Cause.EARLY_STOP)]) | {
    Cause.USER_ERROR
}


@dataclass(frozen=True)
class Sample:
    """A finding whose truth is known: its cause, how sure its rule was, whether that was right, on which family."""

    cause: str
    stated: float
    right: bool
    family: str = ""


def samples(rows: Iterable[Row]) -> list[Sample]:
    """All that rules found as a warning or worse; in a healthy program all of it is wrong."""
    return [
        Sample(each.cause, each.confidence, is_right(row, each.cause), row.family)
        for row in rows
        if not row.error
        for each in row.found
        if each.is_loud and each.source
    ]


def is_right(row: Row, cause: str) -> bool:
    """Whether a cause is the planted one, is right beside it, or is a symptom that it brings about."""
    if not row.cause:
        return False
    brought = {str(each) for each in EXPLAINS.get(Cause(row.cause), frozenset()) & SYMPTOMS}
    return cause in {row.cause, *row.also, *brought}


def fit(known: Sequence[Sample]) -> Calibration:
    """The curve over all, smoothed so that a few right ones don't make a certainty; then what sets causes apart."""
    stated, right, weight = (np.array(column) for column in zip(*_points(known), strict=True))
    share = rising(right / weight, weight)
    block = [share == each for each in share]
    counts = np.array([(weight[same].sum(), right[same].sum()) for same in block])
    humble = rising((counts[:, 1] + 1) / (counts[:, 0] + 2), weight)
    most = (len(known) + 1) / (len(known) + 2)
    curve = Calibration((0.0, *stated.tolist(), 1.0), (0.0, *humble.tolist(), float(humble[-1])), most)
    causes = {name: _known([s for s in known if s.cause == name], curve) for name in {s.cause for s in known}}
    return Calibration(curve.stated, curve.right, most, causes)


def _points(known: Sequence[Sample]) -> list[tuple[float, float, float]]:
    """For each stretch of stated confidence with any finding: its mean, how many were right, and how many there are."""
    points = []
    for low, high in pairwise(EDGES):
        mine = [each for each in known if low <= each.stated < high]
        if mine:
            mean = sum(each.stated for each in mine) / len(mine)
            points.append((mean, sum(each.right for each in mine) + BELIEF * min(mean, 0.95), len(mine) + BELIEF))
    return points


def _known(mine: Sequence[Sample], curve: Calibration) -> Known:
    expected = sum(curve.usual(each.stated) for each in mine) / len(mine)
    seen = (sum(each.right for each in mine) + DOUBT * expected) / (len(mine) + DOUBT)
    return Known(len(mine), log_odds(seen) - log_odds(expected))


def rising(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The nearest numbers in squares that never fall (pool adjacent violators; Ayer et al. 1955)."""
    blocks: list[tuple[float, float, int]] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        blocks.append((value, weight, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (low, one, few), (high, other, more) = blocks.pop(-2), blocks.pop()
            blocks.append(((low * one + high * other) / (one + other), one + other, few + more))
    return np.array([value for value, _, count in blocks for _ in range(count)])


@dataclass(frozen=True)
class Reliability:
    """How well stated confidences hold: the mean gap to the share of right ones (expected calibration error), and the
    mean squared error (Brier 1950).
    """

    gap: float
    squares: float
    lines: tuple[tuple[str, int, float, float], ...]  # stated, how many, their mean, the share of right ones


def reliability(said: Sequence[float], right: Sequence[bool]) -> Reliability:
    """Of these confidences, by stretches of them."""
    values, truth = np.array(said, dtype=float), np.array(right, dtype=float)
    lines = []
    for low, high in pairwise(STATED):
        mine = (values >= low) & (values < high)
        if mine.any():
            text = f"{low:.0%} to {min(high, 1):.0%}"
            lines.append((text, int(mine.sum()), float(values[mine].mean()), float(truth[mine].mean())))
    gap = sum(count * abs(mean - share) for _, count, mean, share in lines) / max(1, len(values))
    return Reliability(gap, float(((values - truth) ** 2).mean()) if len(values) else 0.0, tuple(lines))


def left_out(known: Sequence[Sample], fitted: Callable[[Sequence[Sample]], Calibration] = fit) -> list[float]:
    """The confidence of each finding, fitted without its family."""
    families = {each.family for each in known}
    made = {name: fitted([s for s in known if s.family != name]) for name in families if len(families) > 1}
    return [made[s.family](s.cause, s.stated) if made else s.stated for s in known]


def report(rows: Sequence[Row], calibration: Calibration | None = None) -> str:
    """The tables, with this calibration, or with one that is fitted without the family that it is judged on."""
    known = samples(rows)
    if not known:
        return "No rule found anything."
    right = [each.right for each in known]
    said = left_out(known) if calibration is None else [calibration(each.cause, each.stated) for each in known]
    before, after = reliability([each.stated for each in known], right), reliability(said, right)
    lines = [[text, count, f"{mean:.1%}", f"{share:.1%}"] for text, count, mean, share in after.lines]
    errors = [
        ["as the rules say", f"{before.gap:.3f}", f"{before.squares:.3f}"],
        ["calibrated", f"{after.gap:.3f}", f"{after.squares:.3f}"],
    ]
    head = ("confidence", "findings", "mean confidence", "right")
    return "\n\n".join([table(head, lines), table(("", "expected calibration error", "Brier score"), errors)])
