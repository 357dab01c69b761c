"""What a comparison makes of a curve: its level, and what is drawn, against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbdebug.records.signals import Series
from nbdebug.records.view import Points
from nbdebug.tools.comparison import Pair, compare
from tests.tools.cases import ACCURACY, TRAIN, VAL, one_row, points

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("series", "steps", "values", "last_step", "level"),
    [
        (TRAIN, [1, 2, 3, 4, 5, 6, 7, 8, 9], [9, 9, 9, 9, 9, 9, 1, 2, 6], 9, 3.0),
        (TRAIN, [1, 2, 3, 4], [9, 9, 1, 3], 4, 2.0),  # a third of 4 is taken as 2
        (TRAIN, [1], [5], 1, 5.0),
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, NAN, 4], 6, 4.0),  # recovered
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, INF, 4], 6, 4.0),
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 4, NAN], 6, INF),  # diverged
        (TRAIN, [1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 4, -INF], 6, INF),
        (TRAIN, [1, 2, 3, 4, 5, 6, 7], [9, 9, 9, 9, 4, 6, 100], 6, 5.0),  # step 7 is outside
        (TRAIN, [1, 2], [9, 7], 30, 7.0),  # ended early: its last point
        (TRAIN, [1, 2], [9, NAN], 30, INF),
        (VAL, [10, 20, 30], [9, 8, 1], 30, 1.0),
        (VAL, [10, 20, 30, 40], [9, 8, 3, 1], 49, 2.0),
        (VAL, [10], [8], 90, 8.0),
        (ACCURACY, [10, 20, 30], [0.5, 0.6, NAN], 30, -INF),
    ],
)  # fmt: skip
def test_the_level_is_the_mean_over_the_last_third(
    series: Series, steps: list[int], values: list[float], last_step: int, level: float
) -> None:
    curve = Points(np.array(steps), np.array(values, dtype=np.float64))
    assert one_row(curve, curve, series, last_step).parent_level == level


def test_what_came_before_the_first_step_does_not_count() -> None:
    curve = points([100.0, 100.0, 100.0, 1.0, 2.0, 3.0])
    row = one_row(curve, curve, VAL, last_step=6, first_step=4)
    assert row.parent_level == 3.0
    assert row.parent_curve.steps.tolist() == [4, 5, 6]


def test_training_curves_are_smoothed_without_a_pull_to_their_start_and_validation_is_left_as_it_is() -> None:
    values = np.random.default_rng(0).normal(size=200) + 5
    row = one_row(points(values.tolist()), points([3.0] * 200), TRAIN, last_step=200)
    decay, total, weight, expected = 0.5 ** (30 / 200), 0.0, 0.0, []
    for value in values:
        total, weight = total * decay + value, weight * decay + 1
        expected.append(total / weight)
    assert row.parent_curve.values == pytest.approx(expected)
    assert row.run_curve.values == pytest.approx([3.0] * 200)
    assert row.difference_curve.values == pytest.approx(3.0 - np.array(expected))
    assert one_row(points(values.tolist()), points([3.0] * 200), VAL, 200).parent_curve.values == pytest.approx(values)


def test_the_half_life_is_three_steps_at_least() -> None:
    row = one_row(points([1.0, 0.0, 0.0, 0.0]), points([0.0] * 4), TRAIN, last_step=4)
    weights = 0.5 ** (np.array([3, 2, 1, 0]) / 3)
    assert row.parent_curve.values[-1] == pytest.approx(weights[0] / weights.sum())


def test_what_is_not_finite_stays_in_its_place() -> None:
    row = one_row(points([1.0, NAN, INF, 1.0]), points([2.0] * 4), TRAIN, last_step=4)
    assert row.parent_curve.values == pytest.approx([1.0, NAN, INF, 1.0], nan_ok=True)
    assert row.difference_curve.values == pytest.approx([1.0, NAN, -INF, 1.0], nan_ok=True)


def test_the_difference_is_the_mean_over_seeds_at_the_steps_that_all_have() -> None:
    first = Pair({VAL: points([1.0, 1.0, 1.0])}, {VAL: points([2.0, 2.0, 2.0])})
    second = Pair({VAL: points([1.0, 1.0, 1.0], first=2)}, {VAL: points([4.0, 5.0, 6.0], first=2)})
    row = compare("main", "b", [first, second], first_step=1, last_step=4).rows[0]
    assert row.difference_curve.steps.tolist() == [2, 3]
    assert row.difference_curve.values.tolist() == [2.0, 2.5]
    assert row.run_curve.steps.tolist() == [1, 2, 3]


def test_long_curves_are_thinned_to_what_a_chart_can_show_and_end_where_they_ended() -> None:
    curve = points(np.arange(9_003.0).tolist())
    row = one_row(curve, curve, VAL, last_step=9_003)
    assert 1_000 < row.parent_curve.steps.size <= 2_000
    assert row.parent_curve.steps[-1] == row.difference_curve.steps[-1] == 9_003
    assert (row.parent_curve.values == row.parent_curve.steps - 1).all()
