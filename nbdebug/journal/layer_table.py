"""Layer table: the numbers of all layers over steps, in bounded memory, and every spike kept.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.layer_cells import CELL_BYTES, NAMES, NOTHING, ODD, Cells, Offsets, halved, pairs, unit
from nbdebug.journal.layer_layout import NO_LAYOUT, Intake, Layout, layout_of
from nbdebug.journal.series import Steps, emitted
from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Signal
from nbdebug.records.view import Points, Tracks

MAX_BYTES = 32 << 20
MAX_BUCKETS, MIN_BUCKETS = 512, 8
FIRST_ROOM = 16


@dataclass(frozen=True, slots=True, eq=False)
class Bucket:
    """One bucket of a table: steps from ``number * width`` on, the last sample in it at ``last_step``."""

    layout: Layout
    width: int
    number: int
    last_step: int
    cells: Cells

    @property
    def start(self) -> int:
        """Its first step."""
        return self.number * self.width


class LayerTable:
    """For each signal of each layer buckets of power-of-two width in steps, the same for all.

    Bucket borders are multiples of the width: points do not jump between refreshes. There are at most 512 buckets, and
    fewer where there are many cells, so that a table takes 32 MiB at most. Values are kept as float32; finite ones
    beyond its range as its largest.
    """

    def __init__(self, max_bytes: int = MAX_BYTES, width: int = 1) -> None:
        self.layout = NO_LAYOUT
        self.width = width
        self._max_bytes = max_bytes
        self._size = 0
        self._numbers = np.zeros(FIRST_ROOM, dtype=np.int64)
        self._last = np.zeros(FIRST_ROOM, dtype=np.int64)
        self._cells = Cells.room(FIRST_ROOM, 0)
        self._intake = Intake.of(NO_LAYOUT, (), ())

    def __len__(self) -> int:
        return self._size

    @property
    def capacity(self) -> int:
        """How many buckets there may be: a power of two."""
        fitting = self._max_bytes // max(CELL_BYTES * self.layout.cells, 1)
        return min(MAX_BUCKETS, max(MIN_BUCKETS, 1 << max(fitting.bit_length() - 1, 0)))

    @property
    def size_bytes(self) -> int:
        """The size of the arrays."""
        return self._cells.size_bytes

    def append(self, step: int, table: LayerValues) -> None:
        """Record a sample. Layers and signals may be others than before: what is new was absent before."""
        if not self._intake.fits(self.layout, table):
            self._lay_out(self.layout.with_more(layout_of(table)))
            self._intake = Intake.of(self.layout, table.layers, table.signals)
        there = table.present.ravel()[self._intake.places]
        if self._intake.absent is not None:
            there &= ~self._intake.absent
        self._make_room(step)
        offset = (step % self.width) >> unit(self.width)
        self._put(step // self.width, step, Cells.sample(table.values.ravel()[self._intake.places], there, offset))

    def absorb(self, bucket: Bucket) -> None:
        """Take in a bucket of another table, not older than the newest here; to take one in twice does no harm."""
        if not bucket.layout.is_same(self.layout):
            self._lay_out(self.layout.with_more(bucket.layout))
        while self.width < bucket.width:
            self._merge()
        self._make_room(bucket.start)
        if bucket.layout.is_same(self.layout):
            cells = bucket.cells.copy()
        else:
            cells = bucket.cells.scattered(self.layout.cells, _numbers_of(bucket.layout, self.layout))
        cells.move(bucket.start % self.width, bucket.width, self.width)
        self._put(bucket.start // self.width, bucket.last_step, cells)

    def buckets(self, after: int = -1) -> list[Bucket]:
        """Those with a sample later than a step, oldest first; copies."""
        first = int(np.searchsorted(self._last[: self._size], after, side="right"))
        return [
            Bucket(self.layout, self.width, int(self._numbers[at]), int(self._last[at]), self._cells[at].copy())
            for at in range(first, self._size)
        ]

    def tracks(self, signal: Signal, max_stretches: int) -> Tracks | None:
        """One signal of all layers that have it, in at most so many stretches; ``None`` where there is none."""
        chosen, layers = self.layout.of(signal)
        if not layers or not self._size:
            return None
        n, numbers, steps = self._size, self._numbers[: self._size], self._last[: self._size]
        low, high, odd = (getattr(self._cells, name)[:n, chosen] for name in ("low", "high", "odd"))
        while len(numbers) > max_stretches:
            starts, ends = pairs(numbers)
            low, high = np.fmin(low[starts], low[ends]), np.fmax(high[starts], high[ends])
            odd, steps, numbers = np.maximum(odd[starts], odd[ends]), steps[ends], numbers[starts] >> 1
        return Tracks(signal, layers, steps.copy(), low.astype(np.float64), high.astype(np.float64), odd > 0)

    def points(
        self, signal: Signal, layer: str, first: int = 0, last: int | None = None, max_points: int | None = None
    ) -> Points | None:
        """One signal of one layer, steps ``first`` to ``last``, as a curve; ``None`` where it was never measured."""
        cell = self.layout.cell(signal, layer)
        if cell < 0:
            return None
        ends = int(self._last[self._size - 1]) if last is None else last
        start, stop = np.searchsorted(self._numbers[: self._size], [first // self.width, ends // self.width + 1])
        numbers, width = self._numbers[start:stop], self.width
        cells = self._cells[slice(start, stop), cell]
        while max_points is not None and 2 * len(numbers) > max_points and len(numbers) > 1:
            (numbers, cells), width = halved(numbers, cells, width), 2 * width
        points = _curve(numbers, cells, width)
        inside = (points.steps >= first) & (points.steps <= ends)
        return points if inside.all() else Points(points.steps[inside], points.values[inside])

    def shrink(self) -> bool:
        """Take half the room from now on; false when it can't be less."""
        if self.capacity <= MIN_BUCKETS:
            return False
        self._max_bytes = CELL_BYTES * self.layout.cells * self.capacity // 2
        self._keep_within_capacity()
        return True

    # -- inside -------------------------------------------------------------------------------------------------

    def _make_room(self, step: int) -> None:
        """There is room for the bucket of a step, which may be wider than the buckets were before."""
        while self._size >= self.capacity and step // self.width > self._numbers[self._size - 1]:
            self._merge()

    def _put(self, number: int, step: int, cells: Cells) -> None:
        """Into the newest bucket, or a new one; what is older than that is on record already."""
        at = self._size - 1
        if at >= 0 and number == self._numbers[at]:
            self._cells[at].widen(cells)
            self._last[at] = max(step, int(self._last[at]))
        elif at < 0 or number > self._numbers[at]:
            if self._size == len(self._numbers):
                self._resize(min(2 * self._size, self.capacity))
            self._cells[self._size].put(cells)
            self._numbers[self._size], self._last[self._size] = number, step
            self._size += 1

    def _merge(self) -> None:
        """Double the width, merging the buckets that now fall together, in place."""
        width, kept = self.width, -1
        for at, number in enumerate(self._numbers[: self._size].tolist()):
            cells = self._cells[at]
            cells.move((number & 1) * width, width, 2 * width)
            if kept >= 0 and self._numbers[kept] == number >> 1:
                self._cells[kept].widen(cells)
            else:
                kept += 1
                if kept != at:
                    self._cells[kept].put(cells)
                self._numbers[kept] = number >> 1
            self._last[kept] = self._last[at]
        self._size, self.width = kept + 1, 2 * width

    def _keep_within_capacity(self) -> None:
        while self._size > self.capacity:
            self._merge()
        self._resize(max(self._size, min(len(self._numbers), self.capacity)))

    def _lay_out(self, layout: Layout) -> None:
        """Give every cell its place in a layout that has all of the present one."""
        if layout is self.layout:
            return
        numbers = _numbers_of(self.layout, layout)
        self.layout = layout
        self._keep_within_capacity()
        for name, nothing in NOTHING:  # one after the other: the old and the new of all would be twice the memory
            old = getattr(self._cells, name)
            new = np.full((len(self._numbers), layout.cells), nothing, dtype=old.dtype)
            new[: self._size, numbers] = old[: self._size]
            setattr(self._cells, name, new)

    def _resize(self, room: int) -> None:
        if room == len(self._numbers):
            return
        for holder, name in ((self, "_numbers"), (self, "_last"), *((self._cells, name) for name in NAMES)):
            old = getattr(holder, name)
            new = np.empty((room, *old.shape[1:]), dtype=old.dtype)
            new[: self._size] = old[: self._size]
            setattr(holder, name, new)


def _curve(numbers: Steps, cells: Cells, width: int) -> Points:
    """One cell, ``(buckets,)``, as a curve."""
    starts, shift = numbers * width, unit(width)

    def steps(at: Offsets, none: NDArray[np.bool_]) -> Steps:
        return np.where(none, -1, starts + (at.astype(np.int64) << shift))

    none = np.isnan(cells.low)
    low, high, odd = cells.low.astype(np.float64), cells.high.astype(np.float64), ODD[cells.odd]
    extremes = (steps(cells.low_at, none), low), (steps(cells.high_at, none), high)
    return emitted(*extremes, (steps(cells.odd_at, cells.odd == 0), odd))


def _numbers_of(layout: Layout, within: Layout) -> NDArray[np.intp]:
    """The numbers that cells have in another layout."""
    places = within.places(layout.layers, layout.signals)  # of each cell there, where it lies in the raveled one here
    numbers = np.full(layout.mask.size, -1, dtype=np.intp)
    numbers[places[places >= 0]] = np.flatnonzero(places >= 0)
    return numbers[layout.mask.ravel()]
