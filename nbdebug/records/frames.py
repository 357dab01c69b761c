"""What steps leave behind: a frame for one that was looked into, rows of numbers for a stretch of ordinary ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.layers import Histograms, LayerValues
from nbdebug.records.signals import Series

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Frame:
    """What one step (one batch) left behind. ``step`` counts from 1; ``updates`` counts optimizer steps within it.

    ``layers`` and ``histograms`` are there on sampled steps only.
    """

    run: str
    step: int
    epoch: int
    scalars: tuple[tuple[Series, float], ...]
    updates: int = 0
    layers: LayerValues | None = None
    histograms: tuple[Histograms, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """The numbers of consecutive steps of one epoch: ``steps`` ``(n,)``, ``values`` ``(n, len(series))``."""

    run: str
    epoch: int
    series: tuple[Series, ...]
    steps: NDArray[np.int64]
    values: Floats
