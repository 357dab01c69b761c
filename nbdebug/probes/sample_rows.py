"""Sample rows: samples of many tensors, gathered one after the other and reduced together in a few operations.

What is added is copied at once, so a later operation in place does no harm. Bins are read off the bits of a float32:
its exponent and first fraction bit say which half octave a value lies in, for a shift and a count. Training thread
only; everything stays on the tensors' devices until the instruments bring it to the host.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from nbdebug.probes.sampling import SAMPLE_SIZE, Places, flattened
from nbdebug.records.layers import BINS, CENTRE, OCTAVES, Histograms
from nbdebug.records.signals import Signal

Floats = NDArray[np.float64]

CODES = 1024  # sign, 8 bits of exponent, 1 bit of fraction
SIDE = CODES // 2
NOT_FINITE = 510  # the codes of a side that are inf and NaN
BIAS = 127
FIRST_CAPACITY = 16 * SAMPLE_SIZE
MOST_LAYOUTS = 16
LARGEST = torch.finfo(torch.float32).max
SMALLEST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True)
class Summary:
    """What was found, by key in the order of the first addition; arrays ``(keys,)``, ``counts`` ``(keys, BINS)``.

    ``mean`` and ``std`` are of the finite sampled values, ``zero`` and ``non_finite`` are shares of the sampled ones;
    ``sampled`` of ``elements`` values were looked at. ``counts`` and ``limit`` are on the grid of
    :class:`Histograms`, ``codes`` ``(keys, CODES)`` are the counts by sign, exponent and first fraction bit.
    """

    keys: tuple[str, ...]
    mean: Floats
    std: Floats
    zero: Floats
    non_finite: Floats
    sampled: NDArray[np.int64]
    elements: NDArray[np.int64]
    counts: Floats
    limit: Floats
    codes: Floats

    def of(self, keys: tuple[str, ...], rows: slice | list[int]) -> Summary:
        """These rows of it, under these names."""
        return Summary(
            keys=keys,
            mean=self.mean[rows],
            std=self.std[rows],
            zero=self.zero[rows],
            non_finite=self.non_finite[rows],
            sampled=self.sampled[rows],
            elements=self.elements[rows],
            counts=self.counts[rows],
            limit=self.limit[rows],
            codes=self.codes[rows],
        )

    def histograms(self, signal: Signal) -> Histograms:
        """The counts as a record."""
        return Histograms(signal, self.keys, self.counts, self.limit, self.sampled, self.elements)


@dataclass(slots=True)
class _Buffer:
    """The samples on one device: a flat buffer, and which stretch of it belongs to which row."""

    values: torch.Tensor
    end: int = 0
    owners: list[int] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    _stretches: list[tuple[int, int, torch.Tensor]] = field(default_factory=list)

    def room(self, length: int) -> torch.Tensor:
        """A stretch to write into; the same object in the next step where the samples before it are as long as now."""
        number, begin = len(self.lengths), self.end
        self.end += length
        if number < len(self._stretches):
            known_begin, known_length, stretch = self._stretches[number]
            if known_begin == begin and known_length == length:
                return stretch
            del self._stretches[number:]
        if self.end > len(self.values):
            larger = self.values.new_empty(max(2 * len(self.values), self.end))
            larger[:begin] = self.values[:begin]
            self.values, self._stretches = larger, []
        stretch = self.values.narrow(0, begin, length)
        if number == len(self._stretches):
            self._stretches.append((begin, length, stretch))
        return stretch


class Pool:
    """The samples of one step, of one probe or of several, which are then reduced together.

    ``shared`` says that somebody else calls :meth:`clear`, :meth:`reduce` and :meth:`read`, for all of them.
    """

    def __init__(self, *, shared: bool = True) -> None:
        self.shared = shared
        self.found: Summary | None = None
        self._elements: list[int] = []
        self._buffers: dict[torch.device, _Buffer] = {}
        self._segments: dict[tuple[torch.device, tuple[int, ...]], torch.Tensor] = {}
        self._reduced: list[tuple[list[int], list[int]]] = []

    @property
    def size_bytes(self) -> int:
        """What the buffers hold."""
        return sum(buffer.values.nbytes for buffer in self._buffers.values())

    def clear(self) -> None:
        """Forget all samples."""
        self._elements = []
        self.found = None
        for buffer in self._buffers.values():
            buffer.end, buffer.owners, buffer.lengths = 0, [], []

    def new_row(self) -> int:
        """A row's number."""
        self._elements.append(0)
        return len(self._elements) - 1

    def room(self, row: int, device: torch.device, length: int, elements: int) -> torch.Tensor:
        """A stretch on that device for a sample of so many elements."""
        buffer = self._buffers.get(device)
        if buffer is None:
            buffer = self._buffers[device] = _Buffer(torch.empty(FIRST_CAPACITY, device=device, dtype=torch.float32))
        out = buffer.room(length)
        buffer.owners.append(row)
        buffer.lengths.append(length)
        self._elements[row] += elements
        return out

    def reduce(self) -> list[torch.Tensor]:
        """Per device: counts by code ``(stretches, CODES)``, sums and centred sums of squares ``(stretches, 2)``."""
        found: list[torch.Tensor] = []
        self._reduced = []
        for device, buffer in self._buffers.items():
            if not buffer.owners:
                continue
            values = buffer.values[: buffer.end]
            if device.type == "cpu":
                found += _reduced_on_host(values, buffer.lengths)
            else:
                found += _reduced_on_device(values, self._segments_of(device, buffer.lengths), len(buffer.lengths))
            self._reduced.append((buffer.owners, buffer.lengths))
        return found

    def read(self, arrays: Sequence[Floats]) -> None:
        """What :meth:`reduce` gave, once it is on the host: ``found`` is then of all rows, by number."""
        count = len(self._elements)
        elements = np.asarray(self._elements, dtype=np.int64)
        if len(self._reduced) == 1 and self._reduced[0][0] == list(range(count)):
            self.found = _summed_up(arrays[0], arrays[1], np.asarray(self._reduced[0][1]), elements)
            return
        codes, sampled, sums = np.zeros((count, CODES)), np.zeros(count, dtype=np.int64), np.zeros((count, 2))
        parts = []
        for (owners, lengths), codes_of, sums_of in zip(self._reduced, arrays[::2], arrays[1::2], strict=True):
            rows = np.asarray(owners)
            _add_up(codes, rows, codes_of)
            np.add.at(sampled, rows, lengths)
            np.add.at(sums[:, 0], rows, sums_of[:, 0])
            parts.append((rows, _finite(codes_of, np.asarray(lengths)), sums_of))
        mean = sums[:, 0] / np.maximum(_finite(codes, sampled), 1)
        for rows, finite, sums_of in parts:  # spreads within stretches, and between their means and the row's
            apart = sums_of[:, 0] / np.maximum(finite, 1) - mean[rows]
            np.add.at(sums[:, 1], rows, sums_of[:, 1] + finite * apart * apart)
        self.found = _summed_up(codes, sums, sampled, elements)

    def _segments_of(self, device: torch.device, lengths: Sequence[int]) -> torch.Tensor:
        """To which stretch each sample belongs; remembered, since bringing it to the device takes a while."""
        key = (device, tuple(lengths))
        known = self._segments.get(key)
        if known is None:
            if len(self._segments) >= MOST_LAYOUTS:
                self._segments.clear()
            numbers = np.repeat(np.arange(len(lengths)), lengths)
            known = self._segments[key] = torch.from_numpy(numbers).to(device)
        return known


class SampleRows:
    """A row of up to ``size`` sampled values per key, longer where a key is added more than once.

    With a shared ``pool``, :meth:`reduce` leaves it to others and :meth:`read` takes what they found.
    """

    def __init__(self, size: int = SAMPLE_SIZE, places: Places | None = None, *, pool: Pool | None = None) -> None:
        self.turn = 0
        self._places = places or Places(size)
        self._pool = pool or Pool(shared=False)
        self._rows: dict[str, int] = {}

    def clear(self, turn: int = 0) -> None:
        """Forget all samples; ``turn`` is a number that moves on from step to step."""
        self.turn = turn
        self._rows = {}
        if not self._pool.shared:
            self._pool.clear()

    @property
    def size_bytes(self) -> int:
        """What the buffers hold; 0 where they are shared."""
        return 0 if self._pool.shared else self._pool.size_bytes

    def add(self, key: str, tensor: torch.Tensor) -> None:
        """Copy a sample of a dense, non-empty, floating-point or complex tensor into the row of ``key``."""
        self.add_flat(key, flattened(tensor))

    def add_flat(
        self,
        key: str,
        flat: torch.Tensor,
        *,
        places: Places | None = None,
        divisor: torch.Tensor | None = None,
        sign: int = 1,
    ) -> None:
        """The same of a one-dimensional tensor of real numbers without a graph, sampled at other places if given.

        The sample is divided by ``divisor`` and multiplied by ``sign``.
        """
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = self._pool.new_row()
        places = places or self._places
        elements = flat.numel()
        out = self._pool.room(row, flat.device, min(elements, places.size), elements)
        if flat.dtype is torch.float64:
            out.copy_(_narrowed(places.take(flat, self.turn)))
        else:
            places.take_into(out, flat, self.turn)
        if divisor is not None:
            out.div_(divisor.to(out))
        if sign < 0:
            out.neg_()

    def reduce(self) -> list[torch.Tensor]:
        """The reductions, still on their devices; empty where the pool is shared."""
        return [] if self._pool.shared else self._pool.reduce()

    def read(self, arrays: Sequence[Floats]) -> Summary:
        """What :meth:`reduce` gave, once it is on the host, by key."""
        if not self._pool.shared:
            self._pool.read(arrays)
        every = self._pool.found
        assert every is not None, "the shared pool is read first"
        rows = list(self._rows.values())
        first = rows[0] if rows else 0
        together = rows == list(range(first, first + len(rows)))
        return every.of(tuple(self._rows), slice(first, first + len(rows)) if together else rows)


def _add_up(into: Floats, rows: NDArray[np.int64], values: Floats) -> None:
    """``into[rows] += values``, where a row may come more than once; ``np.add.at`` takes ten times as long."""
    order = np.argsort(rows, kind="stable")
    begins = np.flatnonzero(np.diff(rows[order], prepend=-1))
    into[rows[order[begins]]] += np.add.reduceat(values[order], begins, axis=0)


def _finite(codes: Floats, lengths: NDArray[np.int64]) -> Floats:
    """How many values of each row are finite."""
    odd: Floats = codes[:, NOT_FINITE:SIDE].sum(1) + codes[:, SIDE + NOT_FINITE :].sum(1)
    return lengths - odd


def _summed_up(codes: Floats, sums: Floats, sampled: NDArray[np.int64], elements: NDArray[np.int64]) -> Summary:
    """All rows, from their counts by code, sums and centred sums of squares."""
    good, some = _finite(codes, sampled), np.maximum(sampled, 1)
    enough = np.maximum(good, 1)
    mean, std = sums[:, 0] / enough, np.sqrt(sums[:, 1] / enough)
    if not good.all():
        mean[good == 0] = std[good == 0] = math.nan
    zero = (codes[:, 0] + codes[:, SIDE]) / some
    counts, limit = _on_the_grid(codes)
    return Summary((), mean, std, zero, 1 - good / some, sampled, elements, counts, limit, codes)


def _narrowed(sample: torch.Tensor) -> torch.Tensor:
    """float64 as float32: what is finite stays finite, what is not zero stays so."""
    narrow = sample.to(torch.float32)
    narrow = torch.where(
        narrow.isinf() & sample.isfinite(), torch.copysign(torch.full_like(narrow, LARGEST), narrow), narrow
    )
    lost = (narrow == 0) & (sample != 0)
    return torch.where(lost, torch.copysign(torch.full_like(narrow, SMALLEST), narrow), narrow)


def _reduced_on_host(values: torch.Tensor, lengths: Sequence[int]) -> list[torch.Tensor]:
    numbers = values.numpy()
    count = len(lengths)
    codes = numbers.view(np.int32) >> 22
    codes &= CODES - 1
    codes += np.repeat(np.arange(0, count * CODES, CODES, dtype=np.int32), lengths)
    counts = np.bincount(codes, minlength=count * CODES).reshape(count, CODES)
    starts = np.zeros(count, dtype=np.int64)
    np.cumsum(lengths[:-1], out=starts[1:])
    good = np.asarray(lengths) - counts[:, NOT_FINITE:SIDE].sum(1) - counts[:, SIDE + NOT_FINITE :].sum(1)
    finite = np.isfinite(numbers) if (good != lengths).any() else None
    wide = np.float32 if _is_moderate(counts) else np.float64
    numbers = numbers if finite is None else np.where(finite, numbers, 0)
    total = np.add.reduceat(numbers, starts, dtype=wide)
    mean = (total / np.maximum(good, 1)).astype(np.float32)
    apart = np.subtract(numbers, np.repeat(mean, lengths), dtype=wide)
    if finite is not None:
        apart *= finite
    spread = np.add.reduceat(np.square(apart, out=apart), starts)
    return [torch.from_numpy(counts), torch.from_numpy(np.stack([total, spread], axis=1, dtype=np.float64))]


def _is_moderate(counts: NDArray[np.int64]) -> bool:
    """Whether squares fit into a float32, and don't vanish there: every row's largest is within 2**±40."""
    either = counts[:, :NOT_FINITE] + counts[:, SIDE : SIDE + NOT_FINITE]
    either[:, 0] = 0
    top = (NOT_FINITE - 1 - np.argmax(either[:, ::-1] > 0, axis=1)) >> 1
    some = either.any(axis=1)
    return not (some & ((top < BIAS - 40) | (top > BIAS + 40))).any()


def _reduced_on_device(values: torch.Tensor, segments: torch.Tensor, count: int) -> list[torch.Tensor]:
    """As on the host, without a word from it: nothing here waits for the device."""
    codes = ((values.view(torch.int32) >> 22) & (CODES - 1)) + segments * CODES
    counts = values.new_zeros(count * CODES).index_add_(0, codes, torch.ones_like(values))
    finite = torch.isfinite(values)
    good = values.new_zeros(count).index_add_(0, segments, finite.to(values.dtype))
    wide = torch.float32 if values.device.type == "mps" else torch.float64
    numbers = torch.where(finite, values, 0.0).to(wide)
    total = torch.zeros(count, device=values.device, dtype=wide).index_add_(0, segments, numbers)
    mean = total / good.clamp(min=1)
    apart = torch.where(finite, numbers - mean[segments], 0.0)
    spread = torch.zeros(count, device=values.device, dtype=wide).index_add_(0, segments, apart.square())
    return [counts.view(count, CODES), torch.stack([total, spread], dim=1)]


def _on_the_grid(codes: Floats) -> tuple[Floats, Floats]:
    """Counts by code as ``(keys, BINS)`` on the grid of :class:`Histograms`, and the limits."""
    positive, negative = codes[:, :NOT_FINITE], codes[:, SIDE : SIDE + NOT_FINITE]
    either = positive + negative
    either[:, 0] = 0
    used = either > 0
    top = np.where(used.any(axis=1), NOT_FINITE - 1 - np.argmax(used[:, ::-1], axis=1), 2 * BIAS - 1)
    first = (top | 1) + 1 - 2 * OCTAVES  # the code of the smallest half octave that has a bin of its own
    window = first[:, None] + np.arange(2 * OCTAVES)
    inside = np.clip(window, 0, NOT_FINITE - 1)
    counts = np.zeros((len(codes), BINS))
    right, left = (np.take_along_axis(side, inside, axis=1) * (window > 0) for side in (positive, negative))
    counts[:, CENTRE + 1 :] = right
    counts[:, :CENTRE] = left[:, ::-1]
    counts[:, CENTRE] = positive.sum(axis=1) + negative.sum(axis=1) - right.sum(axis=1) - left.sum(axis=1)
    limit: Floats = np.exp2((top >> 1) - BIAS + 1.0)
    return counts, limit
