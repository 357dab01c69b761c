"""Curves of all layers at once: which were measured, their latest values, fewer stretches, medians. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.dashboard.figures.panel import Floats
from nbdebug.records.view import Tracks


def measured(tracks: Tracks) -> NDArray[np.bool_]:
    """Which layers have anything measured at all; ``(layers,)``."""
    return np.asarray((np.isfinite(tracks.high) | tracks.odd).any(axis=0))


def latest(tracks: Tracks) -> Floats:
    """The last finite value of each layer, NaN without one; ``(layers,)``."""
    finite = np.isfinite(tracks.high)
    where = len(tracks.steps) - 1 - np.argmax(finite[::-1], axis=0)
    values: Floats = np.where(finite.any(axis=0), tracks.high[where, np.arange(len(tracks.layers))], np.nan)
    return values


def thinned(tracks: Tracks, most: int) -> Tracks:
    """Neighbouring stretches joined, a power of two of them, until there are at most ``most``; extremes are kept."""
    count = len(tracks.steps)
    width = 1
    while -(-count // width) > most:
        width *= 2
    if width == 1:
        return tracks
    starts = np.arange(0, count, width)
    ends = np.minimum(starts + width, count) - 1
    return Tracks(
        tracks.signal,
        tracks.layers,
        tracks.steps[ends],
        np.fmin.reduceat(tracks.low, starts, axis=0),
        np.fmax.reduceat(tracks.high, starts, axis=0),
        np.logical_or.reduceat(tracks.odd, starts, axis=0),
    )


def median(values: Floats) -> Floats:
    """The median of each row, NaN left aside, NaN of nothing; ``(n,)``."""
    ordered = np.sort(values, axis=1)  # NaN last
    amount = np.isfinite(values).sum(axis=1)
    rows = np.arange(len(values))
    low, high = (
        ordered[rows, np.maximum(amount - 1, 0) // 2],
        ordered[rows, np.minimum(amount // 2, ordered.shape[1] - 1)],
    )
    middle: Floats = np.where(amount > 0, (low + high) / 2, np.nan)
    return middle
