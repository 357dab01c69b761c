"""Weights and biases by layer: norms, growth since they were first seen, shape of the distribution.

Norms and the largest |bias| are exact, and of the values that the step ran with, before its update; growth is the norm
over that at the first look. Histograms, and the distance from a Gaussian, come from up to 4,096 elements a layer.
Training thread only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from nbdebug.probes import reductions
from nbdebug.probes.gaussian import distance_from_gaussian
from nbdebug.probes.parameters import ParameterTable
from nbdebug.probes.probe import Column, Floats, Reading
from nbdebug.probes.sample_rows import Pool, SampleRows
from nbdebug.probes.sampling import flattened
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Signal


class WeightsProbe:
    """Measures right before each optimizer step, and at the end whatever no optimizer has.

    ``norms`` are, after :meth:`read`, those of the ``parameters``.
    """

    name = "weights"
    signals: tuple[Signal, ...] = (
        Signal.WEIGHT_NORM,
        Signal.WEIGHT_GROWTH,
        Signal.WEIGHT_NON_GAUSSIAN,
        Signal.BIAS_NORM,
        Signal.BIAS_MAX,
        Signal.WEIGHTS,
        Signal.BIASES,
    )
    hook_s = 0.0

    def __init__(
        self, table: ParameterTable, *, histograms: bool, first: dict[str, float], pool: Pool | None = None
    ) -> None:
        self.parameters: list[nn.Parameter] = []
        self.norms: Floats = np.zeros(0)
        self._table = table
        self._magnitudes = reductions.Magnitudes()
        self._first = first
        self._weights = SampleRows(pool=pool) if histograms else None
        self._biases = SampleRows(pool=pool) if histograms else None
        self._measured: dict[nn.Parameter, torch.Tensor] = {}
        self._largest: dict[nn.Parameter, torch.Tensor] = {}
        self._begun: dict[tuple[str, ...], Floats] = {}
        self._arrays_of_weights = 0

    def begin(self, step: int) -> None:
        """A sampled step begins."""
        self.drop()
        for rows in (self._weights, self._biases):
            if rows is not None:
                rows.clear(step)

    def unhook(self) -> None:
        """Nothing is hooked."""

    def updating(self, parameters: Sequence[nn.Parameter]) -> None:
        """Read the parameters of an optimizer that is about to change them."""
        chosen = [p for p in self._table.owned(parameters) if p not in self._measured]
        if not chosen:
            return
        values = [parameter.detach() for parameter in chosen]
        self._measured.update(zip(chosen, reductions.norms(values), strict=True))
        biases = [parameter for parameter in chosen if self._table.is_bias(parameter)]
        if biases:
            largest = self._magnitudes.of([parameter.detach() for parameter in biases])[1]
            self._largest.update(zip(biases, largest, strict=True))
        if self._weights is not None and self._biases is not None:
            for parameter, value in zip(chosen, values, strict=True):
                part = self._table.part(parameter)
                rows = self._biases if part.is_bias else self._weights
                rows.add_flat(
                    self._table.layers[part.layer], flattened(value), places=part.own if part.is_bias else part.shared
                )

    def finish(self) -> list[torch.Tensor]:
        """Norms ``(parameters,)``, maxima of biases ``(biases,)``, then the rows' reductions."""
        self.updating(list(self._table))
        self.parameters = list(self._measured)
        if not self.parameters:
            return []
        found = [reductions.together(list(self._measured.values()))]
        biases = self._table.layout(self.parameters).biases
        if biases is not None:
            found.append(reductions.together([self._largest[self.parameters[i]] for i in biases.order]))
        weights = self._weights.reduce() if self._weights is not None else []
        self._arrays_of_weights = len(weights)
        return found + weights + (self._biases.reduce() if self._biases is not None else [])

    def read(self, arrays: list[Floats]) -> Reading:
        """Columns and histograms by layer."""
        reading = Reading()
        if not self.parameters:
            return reading
        rest = list(arrays)
        self.norms = rest.pop(0)
        layout = self._table.layout(self.parameters)
        if layout.weights is not None:
            norms = layout.weights.norms(self.norms)
            reading.columns.append(Column(Signal.WEIGHT_NORM, layout.weights.layers, norms))
            reading.columns.append(
                Column(Signal.WEIGHT_GROWTH, layout.weights.layers, self._growth(layout.weights.layers, norms))
            )
        if layout.biases is not None:
            largest = np.zeros(len(self.parameters))
            largest[layout.biases.order] = rest.pop(0)
            reading.columns.append(Column(Signal.BIAS_NORM, layout.biases.layers, layout.biases.norms(self.norms)))
            reading.columns.append(Column(Signal.BIAS_MAX, layout.biases.layers, layout.biases.largest(largest)))
        self._read_rows(reading, rest)
        return reading

    def drop(self) -> None:
        """Let go of all tensors."""
        self._measured, self._largest = {}, {}

    def unseen(self) -> list[Unseen]:
        """Parameters of other types than numbers to reckon with."""
        return [Unseen(layer, "weights", f"its values are {kind}") for layer, kind in self._table.unreadable()]

    def _read_rows(self, reading: Reading, arrays: list[Floats]) -> None:
        if self._weights is None or self._biases is None:
            return
        weights = self._weights.read(arrays[: self._arrays_of_weights])
        biases = self._biases.read(arrays[self._arrays_of_weights :])
        found = weights.histograms(Signal.WEIGHTS)
        apart = distance_from_gaussian(found, weights.mean, weights.std)
        reading.columns.append(Column(Signal.WEIGHT_NON_GAUSSIAN, weights.keys, apart))
        reading.histograms.append(found)
        if biases.keys:
            reading.histograms.append(biases.histograms(Signal.BIASES))

    def _growth(self, names: tuple[str, ...], norms: Floats) -> Floats:
        """Over the norm at the first look; a layer that began at zero has grown by as much as it is large."""
        known = self._begun.get(names)
        if known is None:
            first = [self._first.setdefault(name, norm) for name, norm in zip(names, norms.tolist(), strict=True)]
            known = self._begun[names] = np.asarray([norm if norm > 0 else 1.0 for norm in first])
        grown: Floats = norms / known
        return grown
