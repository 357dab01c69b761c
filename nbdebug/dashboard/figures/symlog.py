"""The axis of distributions: linear around 0, logarithmic beyond, in units of each layer's own scale. Pure.

A value x stands at asinh(x / unit). Units are powers of two, so that the recorded bins (half octaves, on one fixed
grid) become the cells of this axis by counting octaves, without any resampling: every count stays whole. The unit is
one to three times what 68 % of the non-zero values stay below, a Gaussian's standard deviation: that keeps its bulk
within the linear part, where it looks like a bell. (With a unit under one deviation it would have two humps, for a
density over log |x| peaks at the deviation.)
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nbdebug.records.layers import BINS, CENTRE, OCTAVES, edges

Floats = NDArray[np.float64]

FINEST = -4  # octaves: the cell around 0 reaches to 2^-4 units
COARSEST = 8  # the outermost cells hold all beyond 2^8 units, too
SIDE = 2 * (COARSEST - FINEST)
CELLS = 2 * SIDE + 1
BULK = 0.683


def borders() -> Floats:
    """The cells' borders in units: ``(CELLS + 1,)``, symmetric."""
    octaves = 2.0 ** np.arange(FINEST, COARSEST, dtype=np.float64)
    rising = np.append(np.column_stack([octaves, 1.5 * octaves]).ravel(), 2.0**COARSEST)
    return np.concatenate([-rising[::-1], rising])


def position(value: float | Floats) -> Floats:
    """Where a value, in units, stands on the axis."""
    place: Floats = np.arcsinh(np.asarray(value, dtype=np.float64))
    return place


def units(counts: Floats, limit: Floats) -> Floats:
    """The unit of each layer, a power of two; ``counts`` ``(layers, BINS)``, ``limit`` ``(layers,)``."""
    folded = counts[:, CENTRE + 1 :] + counts[:, CENTRE - 1 :: -1]
    total = folded.sum(axis=1, keepdims=True)
    below = np.cumsum(folded, axis=1) >= BULK * np.maximum(total, 1e-300)
    upper = edges()[CENTRE + 2 :][np.argmax(below, axis=1)]
    size = np.where((total[:, 0] > 0) & (limit > 0), 2 * upper * limit, np.where(limit > 0, limit, 1.0))
    rounded: Floats = 2.0 ** np.floor(np.log2(size))
    return rounded


def cells(counts: Floats, limit: Floats, unit: Floats) -> Floats:
    """Counts by cell, ``(layers, CELLS)``: what is finer than the cells, or beyond them, is in the nearest."""
    found = np.zeros((len(counts), CELLS))
    shift = np.where(limit > 0, 2 * np.round(np.log2(np.where(limit > 0, limit, 1.0) / unit)), 0.0).astype(np.int64)
    for each in np.unique(shift):
        chosen = shift == each
        found[chosen] = counts[chosen] @ _into_cells(int(each))
    return found


@lru_cache(maxsize=256)
def _into_cells(shift: int) -> Floats:
    """1 where a bin (row) belongs to a cell (column): ``(BINS, CELLS)``."""
    return np.eye(CELLS)[_cell_of(shift)]


def _cell_of(shift: int) -> NDArray[np.int64]:
    """The cell of each bin, ``(BINS,)``, where the limit is ``shift`` half octaves above the unit."""
    rank = np.arange(1, 2 * OCTAVES + 1) - 2 * OCTAVES + shift  # half octaves above the unit, of a side's upper borders
    side = np.clip(rank - 2 * FINEST, 0, SIDE)  # 0: in the cell around 0
    cell = np.full(BINS, SIDE, dtype=np.int64)
    cell[CENTRE + 1 :] = SIDE + side
    cell[CENTRE - 1 :: -1] = SIDE - side
    return cell


def density(counts: Floats) -> Floats:
    """Shares over the cells' widths on the axis; ``(layers, CELLS)``. Their sum times the widths is 1."""
    total = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, total, out=np.zeros_like(counts), where=total > 0)
    dense: Floats = shares / np.diff(position(borders()))
    return dense


def heights(dense: Floats) -> Floats:
    """Square roots, each row's largest 1, so that tails show; the same shape."""
    top = dense.max(axis=1, keepdims=True)
    tall: Floats = np.sqrt(np.divide(dense, top, out=np.zeros_like(dense), where=top > 0))
    return tall


def centres() -> Floats:
    """The middles of the cells on the axis; ``(CELLS,)``."""
    at = position(borders())
    middles: Floats = (at[1:] + at[:-1]) / 2
    return middles


def reach(counts: Floats) -> float:
    """How many units the axis must show, a power of two, so that every cell with a count is on it."""
    used = np.flatnonzero(counts.any(axis=0))
    if not used.size:
        return 2.0
    outer = borders()[max(used[-1] + 1, CELLS - used[0])]
    return float(2.0 ** np.ceil(np.log2(max(outer, 2.0))))


def spread(counts: Floats, limit: Floats) -> Floats:
    """Standard deviations as far as the bins tell, ``(layers,)``; NaN without a count."""
    middle = (edges()[1:] + edges()[:-1]) / 2
    total = counts.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = counts @ middle / total
        variance = counts @ (middle**2) / total - mean**2
        deviation: Floats = np.sqrt(np.maximum(variance, 0.0)) * limit
    return deviation
