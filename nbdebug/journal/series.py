"""One curve in bounded memory. Exact until full; then neighbours are merged, and every spike is kept.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.frames import Floats
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points

CAPACITY = 8_192
SETTLE_AT = 512
MAX_COARSE = 3
TRAIN_LOSS = Series(Signal.LOSS, split=Split.TRAIN)
VAL_LOSS = Series(Signal.LOSS, split=Split.VAL)

Steps = NDArray[np.int64]


class Curve:
    """Values over increasing steps, in buckets of power-of-two width in steps.

    A bucket keeps its smallest and largest finite value and its first non-finite one, each with its step, so what a
    merged curve shows are values that were really recorded. Bucket borders are multiples of the width: points do not
    jump between refreshes. Blocks of values wait as they came until somebody looks or there are many.
    """

    def __init__(self, capacity: int = CAPACITY, width: int = 1) -> None:
        self._capacity = capacity
        self._size = 0
        self._width = width
        self._newest = -1
        self._bucket = np.zeros(64, dtype=np.int64)
        self._low_step = np.zeros(64, dtype=np.int64)
        self._low = np.zeros(64)
        self._high_step = np.zeros(64, dtype=np.int64)
        self._high = np.zeros(64)
        self._odd_step = np.zeros(64, dtype=np.int64)
        self._odd = np.zeros(64)
        self._waiting: list[tuple[Steps, Floats]] = []
        self._waiting_rows = 0
        self.last_step = -1
        self.last_value = math.nan
        self._emitted: Points | None = None
        self._coarse: dict[int, Curve] = {}

    def __len__(self) -> int:
        self._settle()
        return self._size

    @property
    def width(self) -> int:
        """How many steps a bucket covers."""
        self._settle()
        return self._width

    def append(self, step: int, value: float) -> None:
        """Record a value; a second one at the last step replaces nothing, it shares the bucket."""
        self._settle()
        self.last_step, self.last_value = step, value
        self._emitted = None
        for coarse in self._coarse.values():
            coarse.append(step, value)
        bucket = step // self._width
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

    def extend(self, steps: Steps, values: Floats) -> None:
        """Record many values at once, of growing steps: the same as one after the other, and much faster.

        The arrays ``(n,)`` are kept for a while: they must not change afterwards.
        """
        if len(steps):
            self.last_step, self.last_value = int(steps[-1]), float(values[-1])
            self._emitted = None
            self._waiting.append((steps, values))
            self._waiting_rows += len(steps)
            for coarse in self._coarse.values():
                coarse.extend(steps, values)
            if self._waiting_rows >= SETTLE_AT:
                self._settle()

    def points(self, max_points: int | None = None) -> Points:
        """Steps and values, at most about ``max_points`` of them, in order of steps; the same object until one more."""
        self._settle()
        if max_points is not None and self._size > max_points // 2:
            return self._coarser(max_points).points()
        if self._emitted is None:
            self._emitted = self._emit()
        return self._emitted

    def window(self, first: int, last: int, max_points: int) -> Points:
        """The same of the steps ``first`` to ``last`` alone, both included."""
        self._settle()
        buckets = self._bucket[: self._size]
        start = int(np.searchsorted(buckets, first // self._width))
        stop = int(np.searchsorted(buckets, last // self._width, side="right"))
        points = self._copy(start, stop).within(max_points // 2)._emit()
        inside = (points.steps >= first) & (points.steps <= last)
        return points if inside.all() else Points(points.steps[inside], points.values[inside])

    # -- inside -------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Put what waits into buckets."""
        if not self._waiting:
            return
        waiting, self._waiting, self._waiting_rows = self._waiting, [], 0
        steps = np.concatenate([block[0] for block in waiting]) if len(waiting) > 1 else waiting[0][0]
        values = np.concatenate([block[1] for block in waiting]) if len(waiting) > 1 else waiting[0][1]
        for start in range(0, len(steps), SETTLE_AT):
            part = slice(start, start + SETTLE_AT)
            self._absorb(steps[part], values[part])

    def _absorb(self, steps: Steps, values: Floats) -> None:
        """Lay down a bucket for each value, then join those that are the same."""
        start, end = self._size, self._size + len(steps)
        if end > len(self._bucket):
            self._grow(end)
        finite = np.isfinite(values)
        finite_step, odd_step = np.where(finite, steps, -1), np.where(finite, -1, steps)
        rows = (steps // self._width, finite_step, values, finite_step, values, odd_step, values)
        for name, column in zip(_ARRAYS, rows, strict=True):
            getattr(self, name)[start:end] = column
        self._size = end
        self._join_equal_buckets(max(start - 1, 0))
        while self._size > self._capacity:
            self._merge()

    def _coarser(self, max_points: int) -> Curve:
        """The same curve in fewer buckets. It is kept, and gets what comes: to draw it takes the same however long."""
        if max_points not in self._coarse:
            if len(self._coarse) >= MAX_COARSE:
                self._coarse.clear()
            self._coarse[max_points] = self._copy(0, self._size).within(max_points // 2)
        return self._coarse[max_points]

    def within(self, capacity: int) -> Curve:
        """This curve itself, from now on in fewer buckets."""
        self._capacity = max(capacity, 1)
        while self._size > self._capacity:
            self._merge()
        return self

    def _emit(self) -> Points:
        n = self._size
        return emitted(
            (self._low_step[:n], self._low[:n]), (self._high_step[:n], self._high[:n]),
            (self._odd_step[:n], self._odd[:n]),
        )  # fmt: skip

    def _open(self, bucket: int) -> bool:
        """Open a bucket; false when room had to be made and the last one came to cover it."""
        while self._size >= self._capacity:
            self._merge()
            bucket = self.last_step // self._width
            if self._newest == bucket:
                return False
        if self._size == len(self._bucket):
            self._grow(self._size + 1)
        at = self._size
        self._bucket[at] = self._newest = bucket
        self._low_step[at] = self._high_step[at] = self._odd_step[at] = -1
        self._size += 1
        return True

    def _grow(self, needed: int) -> None:
        """Make room for so many buckets at least; twice the room each time, but no more than the capacity."""
        room = max(needed, min(2 * len(self._bucket), self._capacity))
        for name in _ARRAYS:
            old = getattr(self, name)
            larger = np.zeros(room, dtype=old.dtype)
            larger[: self._size] = old[: self._size]
            setattr(self, name, larger)

    def _merge(self) -> None:
        """Double the width, merging the buckets that now fall together."""
        self._width *= 2
        self._bucket[: self._size] //= 2
        self._join_equal_buckets(0)

    def _join_equal_buckets(self, first: int) -> None:
        """Make one bucket of neighbours of the same number, from the bucket ``first`` on."""
        part = slice(first, self._size)
        buckets = self._bucket[part]
        new = begins(buckets)
        starts = np.flatnonzero(new)
        size = first + len(starts)
        if size < self._size:
            group = np.cumsum(new) - 1
            low = _first_smallest(np.where(self._low_step[part] >= 0, self._low[part], np.inf), starts, group)
            high = _first_smallest(np.where(self._high_step[part] >= 0, -self._high[part], np.inf), starts, group)
            odd = _first_smallest(np.where(self._odd_step[part] >= 0, 0.0, 1.0), starts, group)
            self._bucket[first:size] = buckets[starts]
            for steps, values, kept in (
                (self._low_step, self._low, low),
                (self._high_step, self._high, high),
                (self._odd_step, self._odd, odd),
            ):
                steps[first:size], values[first:size] = steps[part][kept], values[part][kept]
        self._size = size
        self._newest = int(self._bucket[size - 1])

    def _copy(self, start: int, stop: int) -> Curve:
        twin = Curve(self._capacity, self._width)
        twin._size, twin.last_step, twin._newest = stop - start, self.last_step, self._newest
        for name in _ARRAYS:
            setattr(twin, name, getattr(self, name)[start:stop].copy())
        return twin


_ARRAYS = ("_bucket", "_low_step", "_low", "_high_step", "_high", "_odd_step", "_odd")
Extremes = tuple[Steps, Floats]


def emitted(low: Extremes, high: Extremes, odd: Extremes) -> Points:
    """Points of buckets' lowest, highest and first odd values, in order of steps; a step below 0: there is none."""
    n = len(low[0])
    steps, values = np.concatenate([low[0], high[0], odd[0]]), np.concatenate([low[1], high[1], odd[1]])
    keep = steps >= 0
    # a bucket of one value has it as both low and high; it is said once
    keep[n : 2 * n] &= (high[0] != low[0]) | (high[1] != low[1])
    steps, values = steps[keep], values[keep]
    order = np.argsort(steps, kind="stable")
    return Points(steps[order], values[order])


def thinned(points: Points, max_points: int) -> Points:
    """At most about so many points, the extremes of every stretch among them."""
    if len(points.steps) <= max_points:
        return points
    capacity, width = max(max_points // 2, 1), 1
    while np.count_nonzero(begins(points.steps // width)) > capacity:
        width *= 2
    curve = Curve(capacity, width)
    curve.extend(points.steps, points.values)
    return curve.points()


def _first_smallest(values: NDArray[np.float64], starts: NDArray[np.intp], group: NDArray[np.intp]) -> NDArray[np.intp]:
    """Per group, which begins at ``starts``, the index of its smallest value; of equal ones the first."""
    smallest = np.minimum.reduceat(values, starts)
    hits = np.flatnonzero(values == smallest[group])
    of = group[hits]
    first: NDArray[np.intp] = hits[begins(of)]
    return first


def begins(numbers: NDArray[np.signedinteger[Any]]) -> NDArray[np.bool_]:
    """Where a number differs from the one before it."""
    new = np.ones(len(numbers), dtype=np.bool_)
    np.not_equal(numbers[1:], numbers[:-1], out=new[1:])
    return new


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

    def extend(self, steps: Steps, values: Floats) -> Points:
        """Take in many values and record the averages, which are returned; bit for bit those of one at a time."""
        finite = np.isfinite(values)
        if not finite.all():
            steps, values = steps[finite], values[finite]
        averages, decay, total, weight = [], self._decay, self._total, self._weight
        for value in values.tolist():  # each average takes the one before it; numpy would round otherwise
            total = total * decay + value
            weight = weight * decay + 1.0
            averages.append(total / weight)
        self._total, self._weight = total, weight
        points = Points(steps, np.array(averages))
        self.curve.extend(points.steps, points.values)
        return points
