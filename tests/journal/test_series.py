"""Curves in bounded memory: exact at first, and no spike lost later."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbdebug.journal.series import Curve, Smoothed


def filled(values, capacity: int = 64) -> Curve:
    curve = Curve(capacity)
    for step, value in enumerate(values, start=1):
        curve.append(step, value)
    return curve


def test_exact_until_full() -> None:
    values = np.random.default_rng(0).normal(size=64)
    points = filled(values).points()
    assert points.steps.tolist() == list(range(1, 65))
    assert points.values.tolist() == values.tolist()


def test_every_spike_is_kept_and_all_points_were_recorded() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    values[[17, 3_333, 9_998]] = 1e6, -1e6, 2e6
    curve = filled(values)
    points = curve.points()
    assert len(curve) <= 64
    assert {1e6, -1e6, 2e6} <= set(points.values)
    assert (np.diff(points.steps) > 0).all()
    assert (values[points.steps - 1] == points.values).all()
    fewer = curve.points(max_points=20)
    assert len(fewer.steps) <= 20
    assert {1e6, -1e6, 2e6} <= set(fewer.values)


def test_non_finite_values_are_kept_as_such() -> None:
    values = [1.0] * 1000
    values[500], values[700] = math.nan, math.inf
    points = filled(values).points(30)
    assert np.isnan(points.values).sum() == 1
    assert np.isinf(points.values).sum() == 1
    assert points.steps[np.isnan(points.values)] == 501


def test_buckets_stay_put_between_refreshes() -> None:
    curve = filled(np.arange(900.0))
    before = set(curve.points().steps[:-4])
    for step in range(901, 910):
        curve.append(step, 0.5)
    assert before <= set(curve.points().steps)


def test_gaps_in_steps() -> None:
    curve = Curve(8)
    for step in (5, 100, 101, 5_000, 70_000, 70_001, 90_000, 90_004, 95_000, 96_000):
        curve.append(step, float(step))
    points = curve.points()
    assert points.steps[0] == 5 and points.steps[-1] == 96_000
    assert (points.steps == points.values).all()


def test_the_same_points_are_given_until_there_is_one_more() -> None:
    curve = filled(range(30))
    points = curve.points()
    assert curve.points() is points
    curve.append(31, 0.0)
    assert curve.points().steps[-1] == 31
    assert points.steps[-1] == 30


def test_smoothing_has_no_pull_to_its_start() -> None:
    smoothed = Smoothed(half_life=5)
    for step in range(50):
        smoothed.append(step, 3.0)
    smoothed.append(50, math.nan)
    assert smoothed.curve.points().values == pytest.approx([3.0] * 50)


def test_smoothing_a_block_is_the_same_as_one_value_after_the_other() -> None:
    values = np.random.default_rng(0).normal(size=500)
    values[[3, 77, 78]] = math.nan, math.inf, -math.inf
    single, many, given = Smoothed(), Smoothed(), []
    for step, value in enumerate(values):
        single.append(step, value)
    for part in np.array_split(np.arange(500), 37):
        given.append(many.extend(part, values[part]))
    assert many.curve.points().steps.tolist() == single.curve.points().steps.tolist()
    assert many.curve.points().values.tolist() == single.curve.points().values.tolist()
    assert np.concatenate([points.values for points in given]).tolist() == single.curve.points().values.tolist()


def test_a_window_is_what_the_whole_shows_there() -> None:
    random = np.random.default_rng(0)
    values = random.normal(size=50_000)
    values[[12_345, 40_000]] = 1e6, math.nan
    curve = Curve(4_096)
    curve.extend(np.arange(1, 50_001), values)
    whole = curve.points()
    for first, last in ((1, 50_000), (12_000, 13_000), (49_990, 60_000), (0, 3), (20_000, 19_999), (60_000, 70_000)):
        window = curve.window(first, last, 100_000)
        inside = (whole.steps >= first) & (whole.steps <= last)
        assert window.steps.tolist() == whole.steps[inside].tolist()
    few = curve.window(10_000, 42_000, 100)
    assert 20 <= len(few.steps) <= 102 and 1e6 in few.values and np.isnan(few.values).sum() == 1
    assert few.steps[0] >= 10_000 and few.steps[-1] <= 42_000


def test_a_second_value_at_a_step_shows_as_well() -> None:
    assert filled([1.0]).points().values.tolist() == [1.0]
    curve = filled([1.0, 2.0])
    curve.append(2, 7.0)
    assert curve.points().steps.tolist() == [1, 2, 2] and curve.points().values.tolist() == [1.0, 2.0, 7.0]


@pytest.mark.parametrize("max_points", [2, 30, 100, 1_000, 100_000])
def test_few_points_are_the_same_whether_the_curve_was_looked_at_before_or_not(max_points: int) -> None:
    random = np.random.default_rng(0)
    looked_at, fresh = Curve(512), Curve(512)
    step = 0
    for block in range(60):
        steps, values = np.arange(step, step + 37), random.normal(size=37)
        step += 37 * (1 + block % 3)
        for curve in (looked_at, fresh):
            curve.extend(steps, values)
            curve.append(step, float(block))
        step += 1
        looked_at.points(max_points)
    seen, expected = looked_at.points(max_points), fresh.points(max_points)
    assert len(seen.steps) <= max(max_points, 2)
    assert seen.steps.tolist() == expected.steps.tolist() and seen.values.tolist() == expected.values.tolist()
