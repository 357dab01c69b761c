"""Gradients by layer: norm, mean and largest |g|, before and after clipping; zeros, what is not finite, a histogram.

Norm, mean, maximum, and whether a layer has a gradient at all, are exact, over all its parameters. The shares of zeros
and of NaN or inf, and the histogram, come from up to 4,096 elements a layer (see :mod:`nbdebug.probes.sampling`); of a
sparse gradient, from the rows that it has. All are in true units: gradients that a scaler multiplied are divided again.
Training thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from nbdebug.probes import reductions
from nbdebug.probes.parameters import Layout, ParameterTable
from nbdebug.probes.probe import Column, Floats, Reading
from nbdebug.probes.sample_rows import Pool, SampleRows
from nbdebug.probes.sampling import flattened
from nbdebug.records.layers import GradientState, Unseen
from nbdebug.records.signals import Signal

BEFORE = (Signal.GRADIENT_NORM, Signal.GRADIENT_MEAN, Signal.GRADIENT_MAX)
AFTER = (Signal.GRADIENT_NORM_CLIPPED, Signal.GRADIENT_MEAN_CLIPPED, Signal.GRADIENT_MAX_CLIPPED)


@dataclass(slots=True)
class _Batch:
    """The gradients of one optimizer: which parameters, and what was measured before and after clipping."""

    parameters: list[nn.Parameter]
    before: torch.Tensor
    after: torch.Tensor | None = None
    factor: torch.Tensor | None = None
    scale: torch.Tensor | None = None

    def tensors(self) -> list[torch.Tensor]:
        """All that goes to the host."""
        optional = (self.after, self.factor, self.scale)
        return [self.before, *(tensor for tensor in optional if tensor is not None)]


class GradientsProbe:
    """Measures before and after clipping at each optimizer step, and at the end whatever no optimizer step covered.

    ``clipped_norms`` are, after :meth:`read`, the norms of the ``parameters`` as the optimizer got them.
    """

    name = "gradients"
    signals: tuple[Signal, ...] = (
        Signal.GRADIENT_STATE,
        Signal.GRADIENT_NORM,
        Signal.GRADIENT_MEAN,
        Signal.GRADIENT_MAX,
        Signal.GRADIENT_NORM_CLIPPED,
        Signal.GRADIENT_MEAN_CLIPPED,
        Signal.GRADIENT_MAX_CLIPPED,
        Signal.GRADIENT_ZERO,
        Signal.GRADIENT_NON_FINITE,
        Signal.GRADIENTS,
    )
    hook_s = 0.0

    def __init__(self, table: ParameterTable, *, histograms: bool, pool: Pool | None = None) -> None:
        self.parameters: list[nn.Parameter] = []
        self.clipped_norms: Floats = np.zeros(0)
        self._table = table
        self._magnitudes = reductions.Magnitudes()
        self._rows = SampleRows(pool=pool) if histograms else None
        self._batches: dict[int, _Batch] = {}
        self._stored: dict[str, float] = {}
        self._states: Floats = np.zeros(0)
        self._states_of: tuple[object, ...] = ()

    def begin(self, step: int) -> None:
        """A sampled step begins."""
        self.drop()
        if self._rows is not None:
            self._rows.clear(step)

    def unhook(self) -> None:
        """Nothing is hooked."""

    def gradients_ready(
        self,
        key: int,
        parameters: Sequence[nn.Parameter],
        scale: torch.Tensor | None,
        norms: Sequence[torch.Tensor] | None,
    ) -> None:
        """Read the gradients of one optimizer, called ``key``, before clipping."""
        present = [parameter for parameter in parameters if parameter.grad is not None]
        chosen = self._table.owned(present)
        again = key in self._batches  # a second update, or closure, in one step: the last counts
        self._batches.pop(key, None)
        if not chosen:
            return
        if norms is not None and len(chosen) != len(present):
            known = dict(zip(present, norms, strict=True))
            norms = [known[parameter] for parameter in chosen]
        measured = self._measure(chosen, norms)
        self._batches[key] = _Batch(chosen, measured, scale=scale)
        if self._rows is not None and not again:
            self._sample(chosen, scale, self._rows)

    def gradients_clipped(
        self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, factor: torch.Tensor | None
    ) -> None:
        """Clipping by norm multiplied all by ``factor``; by value, the gradients are read again."""
        if not self._batches:
            return
        batch = self._batches[next(reversed(self._batches))]
        if factor is None:
            batch.after = self._measure(batch.parameters, None)
        else:
            batch.factor = factor.reshape(())

    def measure_the_rest(self, scale: torch.Tensor | None) -> None:
        """Read the gradients that no optimizer step of this step used."""
        taken = {parameter for batch in self._batches.values() for parameter in batch.parameters}
        rest = [p for p in self._table if p not in taken and p.grad is not None]
        self.gradients_ready(0, rest, scale, None)

    def finish(self) -> list[torch.Tensor]:
        """Norms, sums and maxima by batch ``(3, parameters)``, factors and scales; then the rows' reductions."""
        self._present_states()
        found = [tensor for batch in self._batches.values() for tensor in batch.tensors()]
        return found + (self._rows.reduce() if self._rows is not None else [])

    def read(self, arrays: list[Floats]) -> Reading:
        """Columns and histograms by layer."""
        reading = Reading([Column(Signal.GRADIENT_STATE, tuple(self._table.layers), self._states)])
        rest = list(arrays)
        before, after, self.parameters = self._unpack(rest)
        self.clipped_norms = after[0]
        if self.parameters:
            layout = self._table.layout(self.parameters)
            first = self._by_layer(layout, before)
            kinds = [(first, BEFORE), (first if after is before else self._by_layer(layout, after), AFTER)]
            for values, signals in kinds:
                reading.columns += [Column(s, layout.layers, v) for s, v in zip(signals, values, strict=True)]
        if self._rows is not None:
            self._read_rows(reading, rest)
        return reading

    @staticmethod
    def _by_layer(layout: Layout, measured: Floats) -> tuple[Floats, Floats, Floats]:
        norms, sums, largest = measured
        return layout.norms(norms), layout.sums(sums) / layout.elements, layout.largest(largest)

    def drop(self) -> None:
        """Let go of all tensors."""
        self._batches = {}

    def unseen(self) -> list[Unseen]:
        """Gradients of parameters are always seen."""
        return []

    def _measure(self, parameters: Sequence[nn.Parameter], norms: Sequence[torch.Tensor] | None) -> torch.Tensor:
        values = [reductions.dense(parameter.grad) for parameter in parameters if parameter.grad is not None]
        full = [value for value in values if value.numel()]
        if len(full) < len(values):  # a sparse gradient without a row
            values, norms = [value if value.numel() else torch.zeros(1, device=value.device) for value in values], None
        sums, largest = self._magnitudes.of(values)
        found = [*(norms if norms is not None else reductions.norms(values)), *sums, *largest]
        return reductions.together(found).view(3, len(parameters))

    def _sample(self, parameters: Sequence[nn.Parameter], scale: torch.Tensor | None, rows: SampleRows) -> None:
        for parameter in parameters:
            gradient = parameter.grad
            assert gradient is not None
            part = self._table.part(parameter)
            layer = self._table.layers[part.layer]
            values = reductions.dense(gradient)
            if values.numel():
                rows.add_flat(layer, flattened(values), places=part.shared, divisor=scale)
            if gradient.is_sparse:
                self._stored[layer] = values.numel() / max(parameter.numel(), 1)

    def _unpack(self, arrays: list[Floats]) -> tuple[Floats, Floats, list[nn.Parameter]]:
        """(3, parameters) before and after clipping, in true units; takes what belongs to it off ``arrays``.

        The two are one object where nothing was clipped.
        """
        before, after, parameters = [], [], []
        for batch in self._batches.values():
            here = arrays.pop(0)
            then = arrays.pop(0) if batch.after is not None else here
            if batch.factor is not None:
                then = here * arrays.pop(0)
            if batch.scale is not None:
                scale = arrays.pop(0)
                here, then = here / scale, then / scale
            before.append(here)
            after.append(then)
            parameters += batch.parameters
        if not parameters:
            return np.zeros((3, 0)), np.zeros((3, 0)), []
        whole = np.concatenate(before, axis=1) if len(before) > 1 else before[0]
        if all(a is b for a, b in zip(after, before, strict=True)):
            return whole, whole, parameters
        return whole, np.concatenate(after, axis=1), parameters

    def _read_rows(self, reading: Reading, arrays: list[Floats]) -> None:
        assert self._rows is not None
        summary = self._rows.read(arrays)
        zero = summary.zero
        if self._stored:
            zero = 1 - (1 - zero) * np.asarray([self._stored.get(layer, 1.0) for layer in summary.keys])
        reading.columns.append(Column(Signal.GRADIENT_ZERO, summary.keys, zero))
        reading.columns.append(Column(Signal.GRADIENT_NON_FINITE, summary.keys, summary.non_finite))
        reading.histograms.append(summary.histograms(Signal.GRADIENTS))

    def _present_states(self) -> Floats:
        """By layer, a :class:`GradientState`: one gradient makes it present, one that should be there missing."""
        measured = [parameter for batch in self._batches.values() for parameter in batch.parameters]
        key = (tuple(map(id, measured)), tuple(parameter.requires_grad for parameter in self._table))
        if key != self._states_of:
            self._states_of = key
            self._states = self._states_by_layer(set(measured))
        return self._states

    def _states_by_layer(self, measured: set[nn.Parameter]) -> Floats:
        states = dict.fromkeys(self._table.layers, float(GradientState.FROZEN))
        for parameter in self._table:
            layer = self._table.layer_of(parameter)
            if parameter in measured:
                states[layer] = GradientState.PRESENT
            elif parameter.requires_grad and states[layer] != GradientState.PRESENT:
                states[layer] = GradientState.MISSING
        return np.asarray(list(states.values()), dtype=np.float64)
