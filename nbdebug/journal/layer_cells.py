"""Cells: what buckets of steps hold of each signal of each layer, as arrays, and how buckets are joined. Pure.

A cell takes 15 bytes a bucket.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.series import Steps, begins

CELL_BYTES = 15
OFFSET_BITS = 16
LARGEST = float(np.finfo(np.float32).max)
ODD = np.array([0.0, np.nan, np.inf, -np.inf])  # what the codes mean; 0 is nothing odd
NAN, POSITIVE, NEGATIVE = 1, 2, 3
NOTHING: tuple[tuple[str, float], ...] = (
    ("low", np.nan), ("high", np.nan), ("low_at", 0), ("high_at", 0), ("odd", 0), ("odd_at", 0),
)  # fmt: skip
NAMES = tuple(name for name, _ in NOTHING)

Narrow = NDArray[np.float32]
Offsets = NDArray[np.uint16]
Codes = NDArray[np.uint8]


@dataclass(slots=True)
class Cells:
    """What a bucket, or many, hold of each cell; arrays ``(cells,)`` or ``(buckets, cells)``.

    ``low`` and ``high`` are the extremes of the finite values, NaN where there was none; ``odd`` is the code of the
    first other one. ``low_at``, ``high_at`` and ``odd_at`` are the steps where they were recorded, as offsets within
    the bucket: in steps, or in 65,536ths of a bucket that is wider than that.
    """

    low: Narrow
    high: Narrow
    low_at: Offsets
    high_at: Offsets
    odd: Codes
    odd_at: Offsets

    @staticmethod
    def room(*shape: int) -> Cells:
        """Room for this many; what it holds is to be written before it is read."""
        at = [np.empty(shape, dtype=np.uint16) for _ in range(3)]
        low, high = np.empty(shape, dtype=np.float32), np.empty(shape, dtype=np.float32)
        return Cells(low, high, at[0], at[1], np.empty(shape, dtype=np.uint8), at[2])

    @staticmethod
    def sample(values: NDArray[np.float64], there: NDArray[np.bool_], offset: int) -> Cells:
        """One sample, ``there`` where something was measured, as the content of a bucket."""
        good = np.isfinite(values)
        odd = np.zeros(len(values), dtype=np.uint8)
        if not good.all():
            odd[~good & there] = NAN
            odd[there & (values == np.inf)] = POSITIVE
            odd[there & (values == -np.inf)] = NEGATIVE
        good &= there
        low = np.clip(values, -LARGEST, LARGEST).astype(np.float32)
        low[~good] = np.nan
        at = np.full(len(values), offset, dtype=np.uint16)
        return Cells(low, low, at, at, odd, at)

    @property
    def size_bytes(self) -> int:
        """The size of the arrays."""
        return sum(int(getattr(self, name).nbytes) for name in NAMES)

    def __getitem__(self, which: int | slice | NDArray[np.intp] | tuple[slice, int]) -> Cells:
        """One bucket or several of many, or one cell of several; the same memory but for a choice of several."""
        return Cells(*(getattr(self, name)[which] for name in NAMES))

    def copy(self) -> Cells:
        """The same in memory of its own."""
        return Cells(*(getattr(self, name).copy() for name in NAMES))

    def put(self, other: Cells) -> None:
        """Become the same as another."""
        for name in NAMES:
            getattr(self, name)[...] = getattr(other, name)

    def widen(self, later: Cells) -> None:
        """Take in what was recorded later in the same bucket; of two equal extremes the first stays."""
        lower = ~(later.low >= self.low) & (later.low == later.low)
        higher = ~(later.high <= self.high) & (later.high == later.high)
        np.fmin(self.low, later.low, out=self.low)
        np.fmax(self.high, later.high, out=self.high)
        for where, at, now in ((lower, self.low_at, later.low_at), (higher, self.high_at, later.high_at)):
            at += (now - at) * where  # three times as fast as copying where it holds; what wraps round wraps back
        if later.odd.any():
            first = (self.odd == 0) & (later.odd != 0)
            np.copyto(self.odd, later.odd, where=first)
            np.copyto(self.odd_at, later.odd_at, where=first)

    def move(self, steps: int | Steps, width: int, wider: int) -> None:
        """Offsets within a bucket of one width become those within a wider one, in which this one begins so late."""
        drop, later = np.uint16(unit(wider) - unit(width)), np.asarray(steps >> unit(wider), dtype=np.uint16)
        for at in (self.low_at, self.high_at, self.odd_at):
            if drop:
                at >>= drop
            at += later

    def scattered(self, cells: int, numbers: NDArray[np.intp]) -> Cells:
        """A bucket of more cells, in which these have the given numbers and nothing is known of the others."""
        wide = Cells.room(cells)
        for name, nothing in NOTHING:
            getattr(wide, name).fill(nothing)
            getattr(wide, name)[numbers] = getattr(self, name)
        return wide


def halved(numbers: Steps, cells: Cells, width: int) -> tuple[Steps, Cells]:
    """One cell, ``(buckets,)``, in buckets of twice that width, and their numbers."""
    starts, ends = pairs(numbers)
    first, later = cells[starts], cells[ends]  # the same where a bucket has no other to join: that changes nothing
    for half, at in ((first, starts), (later, ends)):
        half.move((numbers[at] & 1) * width, width, 2 * width)
    first.widen(later)
    return numbers[starts] >> 1, first


def pairs(numbers: Steps) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Of the buckets that fall together where each is twice as wide: the places of the first and of the last."""
    starts = np.flatnonzero(begins(numbers >> 1))
    return starts, np.append(starts[1:], len(numbers)) - 1


def unit(width: int) -> int:
    """Of which power of two of steps offsets within a bucket are multiples."""
    return max(0, width.bit_length() - 1 - OFFSET_BITS)
