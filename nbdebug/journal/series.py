"""One curve in bounded memory. Exact until full; then neighbours are merged, and every spike is kept.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.frames import Floats
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points

CAPACITY = 8_192
TRAIN_LOSS = Series(Signal.LOSS, split=Split.TRAIN)
VAL_LOSS = Series(Signal.LOSS, split=Split.VAL)


class Curve:
    """Values over increasing steps, in buckets of power-of-two width in steps.

    A bucket keeps its smallest and largest finite value and its first non-finite one, each with its step, so what a
    merged curve shows are values that were really recorded. Bucket borders are multiples of the width: points do not
    jump between refreshes.
    """

    def __init__(self, capacity: int = CAPACITY, width: int = 1) -> None:
        self._capacity = capacity
        self._size = 0
        self.width = width
        self._newest = -1
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
        fresh = bucket != self._newest and self._open(bucket)
        at = self._size - 1
        if not math.isfinite(value):
            if self._odd_step[at] < 0:
                self._odd_step[at], self._odd[at] = step, value
        elif fresh:
            self._low_step[at] = self._high_step[at] = step
            self._low[at] = self._high[at] = value
        else:
            self._widen(at, step, value)

    def _widen(self, at: int, step: int, value: float) -> None:
        if self._low_step[at] < 0 or value < self._low[at]:
            self._low_step[at], self._low[at] = step, value
        if self._high_step[at] < 0 or value > self._high[at]:
            self._high_step[at], self._high[at] = step, value

    def extend(self, steps: NDArray[np.int64], values: Floats) -> None:
        """Record many values at once, of growing steps: the same as one after the other, and much faster."""
        for start in range(0, len(steps), 4 * self._capacity):
            part = slice(start, start + 4 * self._capacity)
            self._extend(steps[part], values[part])

    def _extend(self, steps: NDArray[np.int64], values: Floats) -> None:
        self.last_step, self.last_value = int(steps[-1]), float(values[-1])
        self._emitted.clear()
        n, finite = self._size, np.isfinite(values)
        finite_step, odd_step = np.where(finite, steps, -1), np.where(finite, -1, steps)
        more = (steps // self.width, finite_step, values, finite_step, values, odd_step, values)
        for name, column in zip(_ARRAYS, more, strict=True):
            setattr(self, name, np.concatenate([getattr(self, name)[:n], column]))
        self._size = n + len(steps)
        self._join_equal_buckets()
        while self._size > self._capacity:
            self._merge()

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

    def _open(self, bucket: int) -> bool:
        """Open a bucket; false when room had to be made and the last one came to cover it."""
        while self._size >= self._capacity:
            self._merge()
            bucket = self.last_step // self.width
            if self._newest == bucket:
                return False
        if self._size == len(self._bucket):
            self._grow()
        at = self._size
        self._bucket[at] = self._newest = bucket
        self._low_step[at] = self._high_step[at] = self._odd_step[at] = -1
        self._size += 1
        return True

    def _grow(self) -> None:
        for name in _ARRAYS:
            old = getattr(self, name)
            setattr(self, name, np.concatenate([old, np.zeros_like(old)]))

    def _merge(self) -> None:
        """Double the width, merging the buckets that now fall together."""
        self.width *= 2
        self._bucket[: self._size] //= 2
        self._join_equal_buckets()

    def _join_equal_buckets(self) -> None:
        n = self._size
        buckets = self._bucket[:n]
        new = np.r_[True, buckets[1:] != buckets[:-1]]
        starts, group = np.flatnonzero(new), np.cumsum(new) - 1
        low = _first_smallest(np.where(self._low_step[:n] >= 0, self._low[:n], np.inf), starts, group)
        high = _first_smallest(np.where(self._high_step[:n] >= 0, -self._high[:n], np.inf), starts, group)
        odd = _first_smallest(np.where(self._odd_step[:n] >= 0, 0.0, 1.0), starts, group)
        size = len(starts)
        self._bucket[:size] = buckets[starts]
        for steps, values, kept in (
            (self._low_step, self._low, low),
            (self._high_step, self._high, high),
            (self._odd_step, self._odd, odd),
        ):
            steps[:size], values[:size] = steps[kept], values[kept]
        self._size = size
        self._newest = int(self._bucket[size - 1])

    def _copy(self) -> Curve:
        twin = Curve(self._capacity)
        twin.width, twin._size, twin.last_step = self.width, self._size, self.last_step
        twin._newest = self._newest
        for name in _ARRAYS:
            setattr(twin, name, getattr(self, name)[: self._size].copy())
        return twin


_ARRAYS = ("_bucket", "_low_step", "_low", "_high_step", "_high", "_odd_step", "_odd")


def _first_smallest(values: NDArray[np.float64], starts: NDArray[np.intp], group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Per group, which begins at ``starts``, the index of its smallest value; of equal ones the first."""
    smallest = np.minimum.reduceat(values, starts)
    hits = np.flatnonzero(values == smallest[group])
    of = group[hits]
    first: NDArray[np.intp] = hits[np.r_[True, of[1:] != of[:-1]]]
    return first


class Smoothed:
    """An exponential moving average without the pull of its start: Σ w v / Σ w. Non-finite values are passed over."""

    def __init__(self, half_life: float = 12.0) -> None:
        self._decay = 0.5 ** (1 / half_life)
        self._total = 0.0
        self._weight = 0.0
        self.curve = Curve()

    def append(self, step: int, value: float) -> float | None:
        """Take in a value and record the average, which is returned; ``None`` for a value that is passed over."""
        if not math.isfinite(value):
            return None
        self._total = self._total * self._decay + value
        self._weight = self._weight * self._decay + 1.0
        average = self._total / self._weight
        self.curve.append(step, average)
        return average


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

    def replace(self, steps: list[int], records: list[T], latest: T | None, latest_step: int) -> None:
        """Take over what was kept elsewhere, such as in a file."""
        self.steps, self.records = steps, records
        self.latest, self.latest_step = latest, latest_step

    def _halve(self) -> None:
        pairs = zip(self.records[::2], self.records[1::2], strict=True)
        self.records = [self._combine(older, newer) for older, newer in pairs]
        self.steps = self.steps[1::2]
        self._every *= 2
