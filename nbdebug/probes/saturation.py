"""Saturation of bounded activation functions, judged on their inputs: the share beyond the bend. Sampled.

An input counts as saturated where the derivative is under 5 % of its largest, for piecewise linear functions where it
is 0. A ReLU6, like every clamp from 0 on, saturates at its upper end only: at 0 it is just off, and its units are
watched for that. Called from hooks, on the training thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from nbdebug.probes.outputs import first_readable, flat
from nbdebug.probes.sample_rows import BIAS, NOT_FINITE, SIDE, Pool, SampleRows
from nbdebug.probes.sampling import Places

Floats = NDArray[np.float64]

BENDS: dict[type[nn.Module], float] = {
    nn.Tanh: 2.1783,  # 1 - tanh² = 0.05
    nn.Sigmoid: 4.3568,  # 4 s (1 - s) = 0.05
    nn.Softsign: 3.4721,  # 1 / (1 + |x|)² = 0.05
    nn.Hardsigmoid: 3.0,
}


class Saturation:
    """Samples of the inputs of bounded activations, scaled so that they saturate at 1."""

    def __init__(self, places: Places, pool: Pool | None = None) -> None:
        self._places = places
        self._rows = SampleRows(places=places, pool=pool)
        self._one_sided: set[str] = set()
        self._is_empty = True

    def clear(self, turn: int = 0) -> None:
        """A step begins, or broke off."""
        self._rows.clear(turn)
        self._is_empty = True

    def saw(self, name: str, module: nn.Module, args: Any) -> None:
        """Such a module was called, or will be, if it works in place; others are ignored."""
        bounds = saturating_bounds(module)
        tensor = first_readable(args[0]) if bounds is not None and args else ""
        if bounds is None or isinstance(tensor, str) or tensor.is_complex():
            return
        low, high = bounds
        sample = self._places.take(flat(tensor), self._rows.turn).to(torch.float32)
        if low == 0:
            self._one_sided.add(name)
            scaled = sample / high
        else:
            scaled = (sample - (low + high) / 2) / ((high - low) / 2)
        self._rows.add_flat(name, scaled)
        self._is_empty = False

    @property
    def size_bytes(self) -> int:
        """What the samples' buffer holds."""
        return self._rows.size_bytes

    def finish(self) -> list[torch.Tensor]:
        """The samples, reduced."""
        return self._rows.reduce()

    def read(self, arrays: Sequence[Floats]) -> dict[str, float]:
        """The share of saturated inputs by layer, among finite ones."""
        if self._is_empty:
            return {}
        found = self._rows.read(arrays)
        first = 2 * BIAS  # the code of 1.0
        above = found.codes[:, first:NOT_FINITE].sum(1)
        below = found.codes[:, SIDE + first : SIDE + NOT_FINITE].sum(1)
        finite = np.maximum(found.sampled * (1 - found.non_finite), 1)
        return {
            name: float((above[row] + (0 if name in self._one_sided else below[row])) / finite[row])
            for row, name in enumerate(found.keys)
        }


def saturating_bounds(module: nn.Module) -> tuple[float, float] | None:
    """Between which inputs a module is responsive; ``None`` for one that is not bounded."""
    bend = BENDS.get(type(module))
    if bend is not None:
        return -bend, bend
    if isinstance(module, nn.Hardtanh):
        return float(module.min_val), float(module.max_val)
    return None
