"""What a sampled step says about layers: numbers in a table, histograms on one fixed grid, and what can't be seen."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.signals import Signal

OCTAVES = 20
BINS = 4 * OCTAVES + 1
CENTRE = 2 * OCTAVES


class GradientState(IntEnum):
    """Whether a layer had a gradient to measure; a missing gradient (``None``) is not a zero one."""

    PRESENT = 0
    MISSING = 1
    FROZEN = 2


@dataclass(frozen=True, slots=True)
class LayerValues:
    """Numbers per layer: ``values`` and ``present`` are ``(signals, layers)``.

    Where ``present`` is false nothing was measured and the value is 0; NaN and inf were measured as such. The layers
    stand in the order of the model and stay the same from step to step, until the model itself changes.
    """

    layers: tuple[str, ...]
    signals: tuple[Signal, ...]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]

    def of(self, signal: Signal) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Values and presence of one signal, ``(layers,)`` each; all absent when it was not measured at all."""
        if signal not in self.signals:
            return np.zeros(len(self.layers)), np.zeros(len(self.layers), dtype=np.bool_)
        row = self.signals.index(signal)
        return self.values[row], self.present[row]


@dataclass(frozen=True, slots=True)
class Histograms:
    """Signed histograms, symmetric and logarithmic: ``counts`` ``(layers, BINS)``, ``limit`` ``(layers,)``.

    ``limit`` is the power of two just above the largest finite |x|. From it downwards each octave has two bins a side,
    for ``OCTAVES`` octaves; what is smaller, exact zeros included, is in the bin ``CENTRE``. So bin borders are the
    same numbers at every step, and a layer's histograms of different steps line up. ``edges() * limit`` are the
    borders. NaN and inf are counted in no bin. ``sampled`` of ``elements`` values were looked at, ``(layers,)`` each;
    where they are equal the counts are exact, else a share p of them has a standard error of sqrt(p (1 - p) / sampled)
    at most.
    """

    signal: Signal
    layers: tuple[str, ...]
    counts: NDArray[np.float64]
    limit: NDArray[np.float64]
    sampled: NDArray[np.int64]
    elements: NDArray[np.int64]


def edges() -> NDArray[np.float64]:
    """The borders of the bins for a limit of 1: ``(BINS + 1,)``, from -1 to 1."""
    octaves = 2.0 ** -np.arange(OCTAVES, dtype=np.float64)
    falling = np.column_stack([octaves, 0.75 * octaves]).ravel()
    side = np.append(falling, 2.0**-OCTAVES)
    return np.concatenate([-side, side[::-1]])


@dataclass(frozen=True, slots=True)
class Unseen:
    """Something that can't be looked at: which ``layer`` (empty: the whole model), ``what`` of it, and ``why``."""

    layer: str
    what: str
    why: str
