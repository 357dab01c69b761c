"""One curve in bounded memory. Exact until full; then neighbours are merged, and every spike is kept.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from nbdebug.records.view import Points

CAPACITY = 8_192


class Curve:
    """Values over increasing steps, in buckets of power-of-two width in steps.

    A bucket keeps its smallest and largest finite value and its first non-finite one, each with its step, so what a
    merged curve shows are values that were really recorded. Bucket borders are multiples of the width: points do not
    jump between refreshes.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._size = 0
        self.width = 1
        self._bucket = np.zeros(64, dtype=np.int64)
        self._low_step = np.zeros(64, dtype=np.int64)
        self._low = np.zeros(64)
        self._high_step = np.zeros(64, dtype=np.int64)
        self._high = np.zeros(64)
        self._odd_step = np.zeros(64, dtype=np.int64)
        self._odd = np.zeros(64)
        self.last_step = -1
        self.last_value = math.nan
        self._emitted: dict[int | None, Points] = {}

    def __len__(self) -> int:
        return self._size

    def append(self, step: int, value: float) -> None:
        """Record a value; a second one at the last step replaces nothing, it shares the bucket."""
        self.last_step, self.last_value = step, value
        self._emitted.clear()
        bucket = step // self.width
        at = self._size - 1
        if self._size == 0 or self._bucket[at] != bucket:
            at = self._open(bucket)
        if not math.isfinite(value):
            if self._odd_step[at] < 0:
                self._odd_step[at], self._odd[at] = step, value
            return
        if self._low_step[at] < 0 or value < self._low[at]:
            self._low_step[at], self._low[at] = step, value
        if self._high_step[at] < 0 or value > self._high[at]:
            self._high_step[at], self._high[at] = step, value

    def points(self, max_points: int | None = None) -> Points:
        """Steps and values, at most about ``max_points`` of them, in order of steps; the same object until one more."""
        if max_points is not None and self._size <= max_points // 2:
            max_points = None
        if max_points not in self._emitted:
            self._emitted[max_points] = self._thinned(max_points)._emit()
        return self._emitted[max_points]

    def _thinned(self, max_points: int | None) -> Curve:
        if max_points is None:
            return self
        view = self._copy()
        while len(view) * 2 > max_points and len(view) > 1:
            view._merge()
        return view

    def _emit(self) -> Points:
        n = self._size
        steps = np.concatenate([self._low_step[:n], self._high_step[:n], self._odd_step[:n]])
        values = np.concatenate([self._low[:n], self._high[:n], self._odd[:n]])
        keep = steps >= 0
        # a bucket of one value has it as both low and high; key on (step, which kind) to say it once
        keep[n : 2 * n] &= self._high_step[:n] != self._low_step[:n]
        steps, values = steps[keep], values[keep]
        order = np.argsort(steps, kind="stable")
        return Points(steps[order], values[order])

    def _open(self, bucket: int) -> int:
        if self._size == self._capacity:
            self._merge()
            bucket = self.last_step // self.width
            if self._bucket[self._size - 1] == bucket:
                return self._size - 1
        if self._size == len(self._bucket):
            self._grow()
        at = self._size
        self._bucket[at] = bucket
        self._low_step[at] = self._high_step[at] = self._odd_step[at] = -1
        self._size += 1
        return at

    def _grow(self) -> None:
        for name in _ARRAYS:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))

    def _merge(self) -> None:
        """Double the width, merging the buckets that now fall together."""
        self.width *= 2
        n = self._size
        buckets = self._bucket[:n] // 2
        starts = np.flatnonzero(np.r_[True, buckets[1:] != buckets[:-1]])
        partner = np.minimum(starts + 1, n - 1)
        has_partner = (partner > starts) & (buckets[partner] == buckets[starts])
        low = _choose(self._low_step, self._low, starts, partner, has_partner, lambda a, b: b < a)
        high = _choose(self._high_step, self._high, starts, partner, has_partner, lambda a, b: b > a)
        odd = _choose(self._odd_step, self._odd, starts, partner, has_partner, lambda a, b: np.zeros(len(a), bool))
        size = len(starts)
        self._bucket[:size] = buckets[starts]
        for steps, values, (new_steps, new_values) in (
            (self._low_step, self._low, low),
            (self._high_step, self._high, high),
            (self._odd_step, self._odd, odd),
        ):
            steps[:size], values[:size] = new_steps, new_values
        self._size = size

    def _copy(self) -> Curve:
        twin = Curve(self._capacity)
        twin.width, twin._size, twin.last_step = self.width, self._size, self.last_step
        for name in _ARRAYS:
            setattr(twin, name, getattr(self, name)[: self._size].copy())
        return twin


_ARRAYS = ("_bucket", "_low_step", "_low", "_high_step", "_high", "_odd_step", "_odd")


def _choose(
    steps: Any, values: Any, starts: Any, partner: Any, has_partner: Any, better: Callable[[Any, Any], Any]
) -> tuple[Any, Any]:
    """Per merged bucket, the partner's entry where it is the only one or the better one, else the first's."""
    first, second = values[starts], values[partner]
    take = has_partner & (steps[partner] >= 0) & ((steps[starts] < 0) | better(first, second))
    return np.where(take, steps[partner], steps[starts]), np.where(take, second, first)


class Smoothed:
    """An exponential moving average without the pull of its start: Σ w v / Σ w. Non-finite values are passed over."""

    def __init__(self, half_life: float = 12.0) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._total = 0.0
        self._weight = 0.0
        self.curve = Curve()

    def append(self, step: int, value: float) -> None:
        """Take in a value and record the average."""
        if not math.isfinite(value):
            return
        self._total = self._total * self._decay + value
        self._weight = self._weight * self._decay + 1.0
        self.curve.append(step, self._total / self._weight)


T = TypeVar("T")


class Thinned(Generic[T]):
    """Whole records, one per sampled step, in bounded number: when full, neighbours are combined in pairs.

    ``combine(older, newer)`` says what stays of two. ``latest`` is always the last record as it was.
    """

    def __init__(self, combine: Callable[[T, T], T], capacity: int = 512) -> None:
        self.steps: list[int] = []
        self.records: list[T] = []
        self.latest: T | None = None
        self.latest_step = 0
        self._combine = combine
        self._capacity = capacity
        self._every = 1
        self._count = 0

    def append(self, step: int, record: T) -> None:
        """Record a sampled step."""
        self.latest, self.latest_step = record, step
        if self._count % self._every:
            self.steps[-1] = step
            self.records[-1] = self._combine(self.records[-1], record)
        else:
            if len(self.steps) >= self._capacity:
                self._halve()
            self.steps.append(step)
            self.records.append(record)
        self._count += 1

    def _halve(self) -> None:
        pairs = zip(self.records[::2], self.records[1::2], strict=True)
        self.records = [self._combine(older, newer) for older, newer in pairs]
        self.steps = self.steps[1::2]
        self._every *= 2
