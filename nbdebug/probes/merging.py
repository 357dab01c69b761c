"""What all probes found in one step, put together in one table. Pure but for the names that it remembers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.probes.probe import Column
from nbdebug.records.layers import Histograms, LayerValues, Unseen
from nbdebug.records.signals import Series, Signal

MOST_LISTS = 64


@dataclass(frozen=True, slots=True)
class Found:
    """A sampled step on the host; ``unseen`` is ``None`` while it is what it was before."""

    scalars: dict[Series, float]
    layers: LayerValues | None
    histograms: tuple[Histograms, ...]
    unseen: tuple[Unseen, ...] | None


class Merger:
    """Makes tables whose layers stand in the model's order and stay the same from step to step.

    ``modules`` are the names of all modules. A layer gets its row when something was first found of it.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self._order = {name: index for index, name in enumerate(modules)}
        self._layers: dict[str, int] = {}
        self._names: tuple[str, ...] = ()
        self._signals: dict[Signal, int] = {}
        self._known: tuple[Signal, ...] = ()
        self._unseen: tuple[Unseen, ...] | None = None
        self._places: dict[tuple[str, ...], NDArray[np.int64]] = {}

    def merge(
        self,
        columns: Sequence[Column],
        histograms: tuple[Histograms, ...],
        scalars: Mapping[Series, float],
        unseen: tuple[Unseen, ...],
    ) -> Found:
        """One record of everything."""
        self._learn(columns)
        values = np.zeros((len(self._signals), len(self._layers)))
        present = np.zeros(values.shape, dtype=np.bool_)
        for column in columns:
            row, at = self._signals[column.signal], self._places_of(tuple(column.layers))
            values[row, at] = column.values
            present[row, at] = True
        changed = unseen != self._unseen
        self._unseen = unseen
        table = LayerValues(self._names, self._known, values, present) if columns else None
        return Found(dict(scalars), table, histograms, unseen if changed else None)

    def _places_of(self, layers: tuple[str, ...]) -> NDArray[np.int64]:
        """Where these layers stand in the table; remembered, for it is the same few lists each time."""
        known = self._places.get(layers)
        if known is None:
            if len(self._places) >= MOST_LISTS:
                self._places = {}
            known = self._places[layers] = np.asarray([self._layers[layer] for layer in layers], dtype=np.int64)
        return known

    def _learn(self, columns: Sequence[Column]) -> None:
        names = {
            layer
            for layers in {tuple(column.layers) for column in columns} - self._places.keys()
            for layer in layers
            if layer not in self._layers
        }
        if names:
            self._places = {}
            last = len(self._order)
            every = sorted({*self._layers, *names}, key=lambda name: (self._order.get(name, last), name))
            self._layers = {name: index for index, name in enumerate(every)}
            self._names = tuple(every)
        new = [column.signal for column in columns if column.signal not in self._signals]
        for signal in new:
            self._signals.setdefault(signal, len(self._signals))
        self._known = tuple(self._signals)
