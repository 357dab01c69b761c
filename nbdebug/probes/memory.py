"""Memory by layer: parameters, gradients, optimizer state, in bytes; and the peak of the whole. Training thread only.

Exact. What activations take is measured where they pass (:mod:`nbdebug.probes.activations`). The peak is the device's
since the process began, as torch counts it; on the CPU it is that of the process, all that it holds included.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer

from nbdebug.probes.parameters import ParameterTable
from nbdebug.probes.probe import Column, Floats, Reading
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Series, Signal


class MemoryProbe:
    """Adds up what tensors take."""

    name = "memory"
    signals: tuple[Signal, ...] = (
        Signal.MEMORY_PEAK,
        Signal.MEMORY_PARAMETERS,
        Signal.MEMORY_GRADIENTS,
        Signal.MEMORY_OPTIMIZER,
    )
    hook_s = 0.0

    def __init__(self, table: ParameterTable) -> None:
        self._table = table
        self._optimizers: dict[int, Optimizer] = {}
        self._reading = Reading()

    def begin(self, step: int) -> None:
        """A sampled step begins."""
        self._optimizers.clear()

    def unhook(self) -> None:
        """Nothing is hooked."""

    def updated(self, optimizer: Optimizer) -> None:
        """This optimizer was used."""
        self._optimizers[id(optimizer)] = optimizer

    def finish(self) -> list[torch.Tensor]:
        """Sizes are known without looking at a device."""
        parameters = self._table.owned(self._table)
        kinds = (
            (Signal.MEMORY_PARAMETERS, [_bytes(p) for p in parameters]),
            (Signal.MEMORY_GRADIENTS, [_bytes(p.grad) if p.grad is not None else 0 for p in parameters]),
            (Signal.MEMORY_OPTIMIZER, [self._state_bytes(p) for p in parameters]),
        )
        self._reading = Reading(scalars={Series(Signal.MEMORY_PEAK): float(peak_bytes(parameters))})
        if not parameters:
            return []
        layout = self._table.layout(parameters)
        for signal, sizes in kinds:
            values = layout.sums(np.asarray(sizes, dtype=np.float64))
            self._reading.columns.append(Column(signal, layout.layers, values))
        return []

    def read(self, arrays: list[Floats]) -> Reading:
        """Columns by layer, and the peak."""
        return self._reading

    def drop(self) -> None:
        """Let go of the optimizers."""
        self._optimizers.clear()

    def unseen(self) -> list[Unseen]:
        """Sizes are always known."""
        return []

    def _state_bytes(self, parameter: Any) -> int:
        states = (o.state[parameter] for o in self._optimizers.values() if parameter in o.state)
        return sum(_bytes(tensor) for state in states for tensor in _tensors(state))


def peak_bytes(tensors: Sequence[torch.Tensor]) -> int:
    """The most memory in use so far: of the tensors' CUDA devices, else of the process; 0 where nobody says."""
    devices = {tensor.device for tensor in tensors if tensor.device.type == "cuda"}
    if devices:
        return sum(torch.cuda.max_memory_allocated(device) for device in devices)
    if sys.platform == "win32":
        return 0
    import resource  # not there on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _bytes(tensor: torch.Tensor) -> int:
    if not tensor.is_sparse:
        return tensor.nbytes
    return tensor._values().nbytes + tensor._indices().nbytes


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    values = state.values() if isinstance(state, dict) else ()
    return (value for value in values if isinstance(value, torch.Tensor))
