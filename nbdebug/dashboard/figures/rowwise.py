"""What the charts of layers have in common: values by row of the module tree, names, which row is which. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.dashboard import grouping, words
from nbdebug.dashboard.figures.panel import Json
from nbdebug.dashboard.grouping import Row, Rows
from nbdebug.records.layers import LayerValues
from nbdebug.records.signals import Signal

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Table:
    """The latest numbers of some rows: ``at`` are the places of each row's layers in ``latest``."""

    latest: LayerValues
    rows: tuple[Row, ...]
    at: tuple[list[int], ...]

    def values(self, signal: Signal) -> Floats:
        """By layer, NaN where nothing was measured; ``(layers,)``."""
        values, present = self.latest.of(signal)
        known: Floats = np.where(present, values, np.nan)
        return known

    def largest(self, signal: Signal) -> Floats:
        """By row; NaN where nothing finite, or nothing at all, was measured."""
        return grouping.largest(self.values(signal), self.at)

    def mean(self, signal: Signal) -> Floats:
        """By row: of a single layer its value."""
        return grouping.average(self.values(signal), self.at)

    def some(self, flags: Flags) -> Flags:
        """By row, of flags by layer: whether any is set."""
        return grouping.some(flags, self.at)


def table(latest: LayerValues, rows: Rows, wanted: Flags) -> Table:
    """The rows with any of the ``wanted`` layers, ``(layers,)``, and of these only what is wanted."""
    places = {name: index for index, name in enumerate(latest.layers) if wanted[index]}
    found = rows.having(places)
    return Table(latest, tuple(row for row, _ in found), tuple(at for _, at in found))


def name(row: Row) -> str:
    """A row's name in a chart, full, and escaped as plotly needs it."""
    if not row.is_group:
        return words.plain(row.key)
    return words.plain(f"{called(row)} ▸ {len(row.layers)} layers")


def meta(rows: Sequence[Row]) -> dict[str, Json]:
    """For the browser: the keys and labels of the rows, in the order of the chart; it escapes what it writes."""
    return {"keys": [row.key for row in rows], "labels": [row.label for row in rows]}


def called(row: Row) -> str:
    """A row's name in a sentence; a bare number needs the word before it."""
    text = row.label if grouping.STRETCH in row.key else row.key.rstrip(".")
    return f"layer {text}" if text[:1].isdigit() else text


def counted(layers: int, rows: Rows) -> str:
    """``6 layers``, or of very many ``400 layers in 14 groups``."""
    text = words.plural(layers, "layer")
    return f"{text} in {words.plural(len(rows.rows), 'group')}" if any(row.is_group for row in rows.rows) else text
