"""Histogram track: one kind of histogram of all layers over steps, in bounded memory. Counts take two bytes.

Not thread-safe by itself: the journal locks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.journal.series import Steps
from nbdebug.records.frames import Floats
from nbdebug.records.layers import BINS, Histograms
from nbdebug.records.signals import Signal

MAX_BYTES = 4 << 20
MAX_RECORDS, MIN_RECORDS = 128, 4
MOST = np.iinfo(np.uint16).max


@dataclass(frozen=True, slots=True, eq=False)
class Packed:
    """Histograms of one step in little room: ``counts`` ``(layers, BINS)``, to be multiplied by ``scale``, and limits
    as powers of two; ``scale`` is ``None`` where all counts fit as they are. A bin that is not empty stays so.
    """

    step: int
    layers: tuple[str, ...]
    counts: NDArray[np.uint16]
    exponents: NDArray[np.int16]
    sampled: NDArray[np.int64]
    elements: NDArray[np.int64]
    scale: Floats | None = None

    @staticmethod
    def of(step: int, whole: Histograms, before: Packed | None = None) -> Packed:
        """Pack it; what is the same as in the record before is shared with that."""
        counts, scale = whole.counts, None
        if counts.size and counts.max() > MOST:
            scale = np.maximum(counts.max(axis=1) / MOST, 1.0)
            counts = np.ceil(counts / scale[:, None] - 1e-9)
        return Packed(
            step,
            before.layers if before is not None and before.layers == whole.layers else whole.layers,
            counts.astype(np.uint16),
            (np.frexp(whole.limit)[1] - 1).astype(np.int16),
            _shared(before.sampled if before is not None else None, whole.sampled),
            _shared(before.elements if before is not None else None, whole.elements),
            scale,
        )

    @property
    def size_bytes(self) -> int:
        """The size of what is not shared with others."""
        return self.counts.nbytes + self.exponents.nbytes

    def of_layer(self, at: int) -> tuple[Floats, float]:
        """Counts ``(BINS,)`` and limit of one layer."""
        counts = self.counts[at].astype(np.float64)
        return counts if self.scale is None else counts * self.scale[at], 2.0 ** int(self.exponents[at])

    def unpacked(self, signal: Signal) -> Histograms:
        """All layers."""
        counts = self.counts.astype(np.float64)
        if self.scale is not None:
            counts *= self.scale[:, None]
        limit: Floats = np.exp2(self.exponents.astype(np.float64))
        return Histograms(signal, self.layers, counts, limit, self.sampled, self.elements)


@dataclass(frozen=True, slots=True)
class Story:
    """One layer's histograms: ``counts`` ``(n, BINS)`` and ``limits`` ``(n,)`` at ``steps`` ``(n,)``."""

    steps: Steps
    counts: Floats
    limits: Floats


class HistogramTrack:
    """Histograms of one kind, of at most 128 steps, fewer where there are many layers: 4 MiB at most.

    When there are too many, they are thinned in pairs, of which the newer stays: buckets of steps double their width.
    ``latest`` is the newest as it was, with its step.
    """

    def __init__(self, signal: Signal, max_bytes: int = MAX_BYTES) -> None:
        self.signal = signal
        self.width = 1
        self.latest: tuple[Histograms, int] | None = None
        self.records: list[Packed] = []
        self._max_bytes = max_bytes

    @property
    def capacity(self) -> int:
        """How many records there may be."""
        each = self.records[-1].size_bytes if self.records else 1
        return min(MAX_RECORDS, max(MIN_RECORDS, self._max_bytes // max(each, 1)))

    @property
    def size_bytes(self) -> int:
        """The size of the arrays, about."""
        latest = self.latest[0].counts.nbytes if self.latest is not None else 0
        return len(self.records) * self.records[-1].size_bytes + latest if self.records else latest

    @property
    def layers(self) -> dict[str, None]:
        """All layers that any record is of."""
        found: dict[str, None] = {}
        known: tuple[str, ...] = ()
        for record in reversed(self.records):
            if record.layers is not known:
                known = record.layers
                found.update(dict.fromkeys(known))
        return found

    def append(self, step: int, whole: Histograms) -> None:
        """Record a sample."""
        self.absorb(Packed.of(step, whole, self.records[-1] if self.records else None), self.width, (whole, step))

    def absorb(self, record: Packed, width: int, latest: tuple[Histograms, int] | None = None) -> None:
        """Take in a record of another track of that width; one that is older than the newest here is passed over."""
        while self.width < width:
            self._halve()
        if self.records and record.step < self.records[-1].step:
            return
        if self.records and record.step // self.width == self.records[-1].step // self.width:
            self.records.pop()
        self.records.append(record)
        self.latest = latest or (record.unpacked(self.signal), record.step)
        while len(self.records) > self.capacity:
            self._halve()

    def since(self, step: int) -> list[Packed]:
        """The records after a step."""
        return [record for record in self.records if record.step > step]

    def story(self, layer: str) -> Story | None:
        """One layer over time; ``None`` without a record of it."""
        steps, counts, limits = [], [], []
        known: tuple[str, ...] = ()
        at = -1
        for record in self.records:
            if record.layers is not known:
                known = record.layers
                at = known.index(layer) if layer in known else -1
            if at >= 0:
                found, limit = record.of_layer(at)
                steps.append(record.step)
                counts.append(found)
                limits.append(limit)
        if not steps:
            return None
        return Story(np.array(steps, dtype=np.int64), np.stack(counts).reshape(-1, BINS), np.array(limits))

    def shrink(self) -> bool:
        """Take half the room from now on; false when it can't be less."""
        if self.capacity <= MIN_RECORDS:
            return False
        self._max_bytes = self.records[-1].size_bytes * self.capacity // 2
        while len(self.records) > self.capacity:
            self._halve()
        return True

    def _halve(self) -> None:
        self.width *= 2
        newest = {record.step // self.width: record for record in self.records}
        self.records = list(newest.values())


def _shared(before: NDArray[np.int64] | None, now: NDArray[np.int64]) -> NDArray[np.int64]:
    return before if before is not None and np.array_equal(before, now) else now
