"""Curves in bounded memory: exact at first, and no spike lost later."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nbdebug.journal.series import Curve, Smoothed, Thinned


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


def test_thinned_records_keep_the_larger_and_the_latest() -> None:
    thinned: Thinned[int] = Thinned(max, capacity=8)
    values = [1] * 1000
    values[123] = 99
    for step, value in enumerate(values):
        thinned.append(step, value)
    thinned.append(1000, 7)
    assert max(thinned.records) == 99
    assert len(thinned.records) <= 8
    assert (thinned.latest, thinned.latest_step) == (7, 1000)
    assert thinned.steps == sorted(thinned.steps)
