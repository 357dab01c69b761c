"""Layout: which layers and signals a table has, and where the numbers of each lie. Pure; any thread.

Not every signal is there for every layer: an activation function has no weights. Only pairs that were measured at
least once have a cell. Cells stand in the order of signals, and of layers within a signal, so that one signal of all
layers is one stretch of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Signal

UNTRACKED = frozenset({Signal.GRADIENT_STATE})  # a word, not a quantity: the latest is all there is to say
Name = TypeVar("Name")
Bools = NDArray[np.bool_]
Indices = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Layout:
    """``mask`` ``(signals, layers)`` says which pairs have a cell."""

    layers: tuple[str, ...]
    signals: tuple[Signal, ...]
    mask: Bools

    @cached_property
    def cells(self) -> int:
        """How many cells there are."""
        return int(np.count_nonzero(self.mask))

    @cached_property
    def numbers(self) -> Indices:
        """The number of each pair's cell, ``(signals, layers)``, -1 where there is none."""
        numbers = np.cumsum(self.mask, dtype=np.intp).reshape(self.mask.shape) - 1
        return np.where(self.mask, numbers, -1)

    @cached_property
    def _row_of(self) -> dict[Signal, int]:
        return {signal: row for row, signal in enumerate(self.signals)}

    @cached_property
    def _column_of(self) -> dict[str, int]:
        return {layer: column for column, layer in enumerate(self.layers)}

    @cached_property
    def _stretches(self) -> dict[Signal, tuple[slice, tuple[str, ...]]]:
        found, end = {}, 0
        for signal, row in zip(self.signals, self.mask, strict=True):
            layers = tuple(self.layers[column] for column in np.flatnonzero(row).tolist())
            found[signal] = (slice(end, end + len(layers)), layers)
            end += len(layers)
        return found

    def of(self, signal: Signal) -> tuple[slice, tuple[str, ...]]:
        """The cells of a signal, and their layers."""
        return self._stretches.get(signal, (slice(0, 0), ()))

    def cell(self, signal: Signal, layer: str) -> int:
        """The cell of a signal of a layer, -1 without one."""
        row, column = self._row_of.get(signal), self._column_of.get(layer)
        return -1 if row is None or column is None else int(self.numbers[row, column])

    def pairs(self) -> list[tuple[Signal, str]]:
        """All that have a cell, in their order."""
        return [(signal, layer) for signal in self.signals for layer in self.of(signal)[1]]

    def is_same(self, other: Layout) -> bool:
        """Whether the cells of both are the same, in the same order."""
        return self is other or (
            self.layers == other.layers and self.signals == other.signals and np.array_equal(self.mask, other.mask)
        )

    def places(self, layers: tuple[str, ...], signals: tuple[Signal, ...]) -> Indices:
        """Each cell's place in a raveled table of these signals and layers, ``(cells,)``, -1 where it has none."""
        rows = _places(self.signals, signals)[:, None]
        columns = _places(self.layers, layers)[None, :]
        flat = np.where((rows < 0) | (columns < 0), -1, rows * len(layers) + columns)
        places: Indices = flat[self.mask]
        return places

    def with_more(self, other: Layout) -> Layout:
        """This layout and another. Where the other has all layers of this one its order counts, else it comes after."""
        layers, signals = _joined(self.layers, other.layers), _joined(self.signals, other.signals)
        mask = np.zeros((len(signals), len(layers)), dtype=np.bool_)
        for one in (self, other):
            mask[np.ix_(_places(one.signals, signals), _places(one.layers, layers))] |= one.mask
        both = Layout(layers, signals, mask)
        return self if both.is_same(self) else both


NO_LAYOUT = Layout((), (), np.zeros((0, 0), dtype=np.bool_))


def layout_of(table: LayerValues) -> Layout:
    """A cell for everything that this table holds, but for what is not kept over time."""
    mask = table.present.copy()
    mask[[signal in UNTRACKED for signal in table.signals]] = False
    return Layout(table.layers, table.signals, mask)


@dataclass(frozen=True, eq=False)
class Intake:
    """How tables of these layers and signals go into the cells of a layout: worked out once for many tables.

    ``places`` ``(cells,)`` are where to find each cell in a raveled table; ``absent`` says of which cells it has none,
    ``None`` where it has all. ``homeless`` ``(signals, layers)`` has no cell.
    """

    layout: Layout
    layers: tuple[str, ...]
    signals: tuple[Signal, ...]
    places: Indices
    absent: Bools | None
    homeless: Bools

    @staticmethod
    def of(layout: Layout, layers: tuple[str, ...], signals: tuple[Signal, ...]) -> Intake:
        """Work it out."""
        places = layout.places(layers, signals)
        absent = places < 0
        homeless = np.ones((len(signals), len(layers)), dtype=np.bool_)
        homeless.ravel()[places[~absent]] = False
        homeless[[signal in UNTRACKED for signal in signals]] = False
        return Intake(layout, layers, signals, np.maximum(places, 0), absent if absent.any() else None, homeless)

    def fits(self, layout: Layout, table: LayerValues) -> bool:
        """Whether a table can go into this layout so: each of its numbers has a cell."""
        return (
            self.layout is layout
            and self.layers == table.layers
            and self.signals == table.signals
            and not (table.present & self.homeless).any()
        )


def _joined(known: tuple[Name, ...], more: tuple[Name, ...]) -> tuple[Name, ...]:
    if known == more or set(known) <= set(more):
        return more
    there = set(known)
    return known + tuple(name for name in more if name not in there)


def _places(names: tuple[Name, ...], within: tuple[Name, ...]) -> Indices:
    at = {name: index for index, name in enumerate(within)}
    return np.array([at.get(name, -1) for name in names], dtype=np.intp)
