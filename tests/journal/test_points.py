"""Rows of points: bytes and back, and thinning that keeps every spike."""

from __future__ import annotations

import numpy as np
import pytest

from nbdebug.journal.points import Stretch, joined, packed, thinned, unpacked
from nbdebug.journal.series import Curve


@pytest.mark.parametrize(
    "steps",
    [[1], [5, 6, 7, 8], [5, 5, 6], [1, 100, 101, 4_000_000], [0, 2**32], [2**40, 2**40 + 5], [7, 3]],
)
def test_bytes_and_back(steps: list[int]) -> None:
    values = np.random.default_rng(0).normal(size=len(steps))
    values[0] = np.nan
    back = unpacked(*packed(Stretch(np.array(steps), values)), 4)
    assert back.steps.tolist() == steps and back.width == 4
    np.testing.assert_array_equal(back.values, values)


def test_consecutive_steps_take_no_room() -> None:
    assert packed(Stretch(np.arange(10, 2000), np.zeros(1990)))[1] is None


def test_what_does_not_fit_together_is_refused() -> None:
    with pytest.raises(ValueError, match="1 steps for 3 values"):
        unpacked(0, bytes(4), bytes(24), 1)


def test_thinning_keeps_spikes_and_the_last_point_and_ends_small() -> None:
    values = np.random.default_rng(0).normal(size=10_000)
    values[[17, 3_333, 5_000]] = 1e6, -1e6, np.nan
    stretch, before = Stretch(np.arange(1, 10_001), values), 10_001
    while len(stretch.steps) > 16:
        stretch = thinned(stretch)
        assert {1e6, -1e6, values[-1]} <= set(stretch.values) and np.isnan(stretch.values).sum() == 1
        np.testing.assert_array_equal(values[stretch.steps - 1], stretch.values)
        assert len(stretch.steps) < before and stretch.steps[-1] == 10_000
        before = len(stretch.steps)


def test_joined_in_their_order() -> None:
    both = joined([Stretch(np.array([1, 2]), np.array([3.0, 4.0]), 8), Stretch(np.array([9]), np.array([5.0]))])
    assert (both.steps.tolist(), both.values.tolist(), both.width) == ([1, 2, 9], [3.0, 4.0, 5.0], 8)


def test_many_at_once_are_the_same_as_one_after_the_other() -> None:
    random = np.random.default_rng(0)
    for _ in range(100):
        n = int(random.integers(1, 800))
        steps = np.cumsum(random.integers(0, random.integers(2, 50), n))
        values = random.choice([0.0, 1.0, 2.0, 5.5, np.nan, np.inf, -np.inf], n)
        single, many = Curve(16), Curve(16)
        for step, value in zip(steps.tolist(), values.tolist(), strict=True):
            single.append(step, value)
        for part in np.array_split(np.arange(n), 1 + n // 60):
            many.extend(steps[part], values[part])
        assert (many.width, len(many), many.last_step) == (single.width, len(single), single.last_step)
        np.testing.assert_array_equal(many.points().steps, single.points().steps)
        np.testing.assert_array_equal(many.points().values, single.points().values)


def test_a_curve_with_wide_gaps_stays_bounded() -> None:
    curve = Curve(64)
    for step in range(0, 1_000_000, 1_000):
        curve.append(step, float(step))
    assert len(curve) <= 64
