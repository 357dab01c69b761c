"""One step's record: what the probes measured between the batch's arrival and the safe point after it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.signals import Series

Floats = NDArray[np.float64]


class GradientState(IntEnum):
    """Whether a layer had a gradient to measure; a missing gradient (``None``) is not a zero one."""

    PRESENT = 0
    MISSING = 1
    FROZEN = 2


@dataclass(frozen=True, slots=True)
class GradientFlow:
    """Mean and maximum of |g| per layer, before and after clipping; arrays of shape ``(layers,)``.

    Layers without a gradient hold 0 and say why in ``state`` (values of :class:`GradientState`).
    """

    layers: tuple[str, ...]
    mean: Floats
    max: Floats
    clipped_mean: Floats
    clipped_max: Floats
    state: NDArray[np.int8]


@dataclass(frozen=True, slots=True)
class Activations:
    """Histograms of layer outputs. ``counts`` is ``(layers, bins)``, over ``[-limit, limit]`` of each layer.

    ``limit`` is a power of two that holds every finite sampled value, so the bins stay put while a layer's scale does.
    ``mean`` and ``std`` are of the same sample; ``non_finite`` is the share of NaN and inf in it.
    """

    layers: tuple[str, ...]
    counts: Floats
    limit: Floats
    mean: Floats
    std: Floats
    non_finite: Floats


@dataclass(frozen=True, slots=True)
class Frame:
    """What one step (one batch) left behind. ``step`` counts from 1; ``updates`` counts optimizer steps within it."""

    run: str
    step: int
    epoch: int
    scalars: tuple[tuple[Series, float], ...]
    updates: int = 0
    gradients: GradientFlow | None = None
    activations: Activations | None = None
