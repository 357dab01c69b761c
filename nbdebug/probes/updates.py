"""Updates by layer: the change that an optimizer really made, exact in its norm. Training thread only.

The parameters are copied right before the optimizer's step and subtracted right after it, on their device. The
histogram, and the distance from a Gaussian, come from up to 4,096 elements a layer. The ratio to the weights is made of
this norm and theirs (:mod:`nbdebug.probes.derived`).
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

KEPT_BYTES = 64 << 20  # copies up to this size stay from one sample to the next; larger ones are made anew


class UpdatesProbe:
    """Copies before, subtracts after. Of several updates in one step the last counts.

    ``norms`` are, after :meth:`read`, those of the ``parameters``; a skipped update leaves them out.
    """

    name = "updates"
    signals: tuple[Signal, ...] = (Signal.UPDATE_NORM, Signal.UPDATE_NON_GAUSSIAN, Signal.CHANGES)
    hook_s = 0.0

    def __init__(self, table: ParameterTable, *, histograms: bool, pool: Pool | None = None) -> None:
        self.parameters: list[nn.Parameter] = []
        self.norms: Floats = np.zeros(0)
        self.seen = False
        self._table = table
        self._rows = SampleRows(pool=pool) if histograms else None
        self._copies: dict[nn.Parameter, torch.Tensor] = {}
        self._found: dict[int, tuple[list[nn.Parameter], torch.Tensor, torch.Tensor | None]] = {}

    @property
    def size_bytes(self) -> int:
        """What copies take between samples."""
        return sum(copy.nbytes for copy in self._copies.values())

    def begin(self, step: int) -> None:
        """A sampled step begins."""
        self._found = {}
        self.seen = False
        if self._rows is not None:
            self._rows.clear(step)

    def unhook(self) -> None:
        """Nothing is hooked."""

    def updating(self, parameters: Sequence[nn.Parameter]) -> None:
        """An optimizer is about to change these."""
        chosen = self._learning(parameters)
        for parameter in chosen:
            copy = self._copies.get(parameter)
            if copy is None or copy.shape != parameter.shape or copy.dtype is not parameter.dtype:
                self._copies[parameter] = torch.empty_like(parameter, requires_grad=False)
        if chosen:
            torch._foreach_copy_([self._copies[p] for p in chosen], [p.detach() for p in chosen])

    def updated(self, key: int, parameters: Sequence[nn.Parameter], skipped: torch.Tensor | None) -> None:
        """It did; ``skipped`` above 0 says that it changed nothing after all."""
        chosen = [parameter for parameter in self._learning(parameters) if parameter in self._copies]
        self.seen = True
        if not chosen:
            return
        changes = [self._copies[parameter] for parameter in chosen]
        torch._foreach_sub_(changes, [parameter.detach() for parameter in chosen])  # before - after
        again = key in self._found
        self._found[key] = (chosen, reductions.together(reductions.norms(changes)), skipped)
        if self._rows is not None and not again:
            for parameter, change in zip(chosen, changes, strict=True):
                part = self._table.part(parameter)
                layer = self._table.layers[part.layer]
                self._rows.add_flat(layer, flattened(change), places=part.shared, sign=-1)

    def finish(self) -> list[torch.Tensor]:
        """Norms by optimizer ``(parameters,)``, each with its flag where it has one; then the rows' reductions."""
        found = []
        for _, norms, skipped in self._found.values():
            found += [norms] if skipped is None else [norms, skipped.reshape(())]
        rows = self._rows.reduce() if self._rows is not None and self._found else []
        if self.size_bytes > KEPT_BYTES:
            self._copies.clear()
        return found + rows

    def read(self, arrays: list[Floats]) -> Reading:
        """Columns and histograms by layer."""
        rest, norms = list(arrays), []
        reading, any_skipped = Reading(), False
        self.parameters = []
        for chosen, _, skipped in self._found.values():
            values = rest.pop(0)
            if skipped is not None and float(rest.pop(0)) > 0:
                any_skipped = True
                continue
            self.parameters += chosen
            norms.append(values)
        if not self.parameters:
            return reading
        self.norms = np.concatenate(norms)
        layout = self._table.layout(self.parameters)
        reading.columns.append(Column(Signal.UPDATE_NORM, layout.layers, layout.norms(self.norms)))
        if self._rows is not None and not any_skipped:
            summary = self._rows.read(rest)
            histograms = summary.histograms(Signal.CHANGES)
            apart = distance_from_gaussian(histograms, summary.mean, summary.std)
            reading.columns.append(Column(Signal.UPDATE_NON_GAUSSIAN, summary.keys, apart))
            reading.histograms.append(histograms)
        return reading

    def drop(self) -> None:
        """The step is over; copies stay where they are small."""

    def unseen(self) -> list[Unseen]:
        """What an optimizer does is always seen."""
        return []

    def _learning(self, parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
        return [parameter for parameter in self._table.owned(parameters) if parameter.requires_grad]
