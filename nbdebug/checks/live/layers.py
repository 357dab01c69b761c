"""What live checks ask of all layers at once: medians with gaps, what a layer was at first, and recent rows. Pure."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Skip
from nbdebug.checks.live.window import Track, Window
from nbdebug.records.frames import Floats
from nbdebug.records.signals import Signal

MOST_NAMED = 8


def quantiles(values: Floats, share: float, axis: int = 1) -> Floats:
    """The quantile along an axis, of what is finite; NaN where nothing is. The lower of two neighbours."""
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=axis)
    counts = np.isfinite(ordered).sum(axis=axis, keepdims=True)
    if not ordered.shape[axis]:
        return np.full(counts.shape, np.nan).squeeze(axis)
    places = np.maximum(np.floor((counts - 1) * share).astype(np.int64), 0)
    taken: Floats = np.take_along_axis(ordered, places, axis).squeeze(axis)
    return taken


def medians(values: Floats, axis: int = 1) -> Floats:
    """The median along an axis, as :func:`quantiles`."""
    return quantiles(values, 0.5, axis)


def tracked(window: Window, signal: Signal, fewest: int = 2, *, after: int | None = None) -> Track:
    """A signal's rows since the last change by hand.

    Raises:
        Skip: there are fewer than ``fewest``.
    """
    found = window.track(signal)
    after = window.since_change if after is None else after
    first = int(np.searchsorted(found.steps, after, side="right")) if found is not None else 0
    if found is None or len(found) - first < fewest:
        raise Skip(f"{signal} was measured at fewer than {fewest} steps")
    return Track(found.layers, found.steps[first:], found.low[first:], found.high[first:], found.odd[first:])


def places(names: tuple[str, ...], within: tuple[str, ...]) -> NDArray[np.int64]:
    """Where each name stands among others, -1 where it does not."""
    if not within:
        return np.full(len(names), -1, dtype=np.int64)
    others = np.array(within)
    order = np.argsort(others, kind="stable")
    found = np.minimum(np.searchsorted(others, np.array(names, dtype=others.dtype), sorter=order), len(within) - 1)
    at = order[found]
    return np.where(others[at] == np.array(names, dtype=np.str_), at, -1).astype(np.int64)


def named(layers: tuple[str, ...], chosen: NDArray[np.bool_]) -> tuple[str, ...]:
    """The names of the chosen layers."""
    return tuple(layers[place] for place in np.flatnonzero(chosen).tolist())


def listed(layers: tuple[str, ...]) -> str:
    """Names in a sentence."""
    more = f" and {len(layers) - MOST_NAMED} more" if len(layers) > MOST_NAMED else ""
    return ", ".join(layer or "the model itself" for layer in layers[:MOST_NAMED]) + more
