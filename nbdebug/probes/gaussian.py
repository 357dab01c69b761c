"""How far a distribution is from a Gaussian of its own mean and deviation. Pure.

The Kolmogorov–Smirnov distance, the largest gap between the two cumulative distributions, here at the borders of
the histogram's bins: 0 for a Gaussian, 0.06 for a uniform one, towards 0.5 where nearly all is at one point. Of n
samples its noise is about 0.9 / sqrt(n).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.layers import Histograms, edges

Floats = NDArray[np.float64]

_Z = np.linspace(-6.0, 6.0, 2401)
_PHI = np.array([0.5 * (1 + math.erf(z / math.sqrt(2))) for z in _Z])
_EDGES = edges()


def distance_from_gaussian(found: Histograms, mean: Floats, std: Floats) -> Floats:
    """``(layers,)``, from their histograms and the sampled means and deviations; NaN where there is no spread."""
    total = found.counts.sum(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        below = np.cumsum(found.counts, axis=1)[:, :-1] / total
        z = (_EDGES[1:-1] * found.limit[:, None] - mean[:, None]) / std[:, None]
        gaps = np.abs(below - np.interp(z, _Z, _PHI, left=0.0, right=1.0))
        distance: Floats = np.where((std > 0) & (total[:, 0] > 1), gaps.max(axis=1), np.nan)
    return distance
