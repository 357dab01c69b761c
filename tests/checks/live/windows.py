"""Windows made by hand: curves by formula, and tracks of a few layers, without any training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nbdebug.checks.live.window import Curve, Facts, Track, Window
from nbdebug.records.findings import Severity
from nbdebug.records.looks import Looked
from nbdebug.records.signals import Signal

LAYERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")


@dataclass(frozen=True)
class Case:
    """A window, the check that it is for, and what is to be found: a cause and how loud, or nothing at all."""

    check: str
    what: str
    window: Window
    cause: str = ""
    severity: Severity = Severity.WARNING


def noise(count: int, size: float = 1.0, seed: int = 0) -> np.ndarray:
    """Normal noise, the same at each call."""
    return size * np.random.default_rng(seed).standard_normal(count)


def falling(count: int = 200, start: float = 2.0, end: float = 0.1, rate: float = 30.0, scatter: float = 0.02):
    """A loss as it should be."""
    return end + (start - end) * np.exp(-np.arange(count) / rate) + noise(count, scatter) * (np.arange(count) > 0)


def flat(count: int = 200, level: float = 2.0, scatter: float = 0.05):
    """A loss that goes nowhere."""
    return level + noise(count, scatter)


def curve(values: Any, steps: Any = None) -> Curve:
    values = np.asarray(values, dtype=float)
    return Curve(np.arange(1, len(values) + 1) if steps is None else np.asarray(steps), values)


def track(rows: Any, steps: Any = None, layers: tuple[str, ...] = LAYERS) -> Track:
    """Of ``(n, layers)`` numbers; a row for each 20th step, unless told otherwise."""
    rows = np.asarray(rows, dtype=float)
    steps = np.arange(1, len(rows) + 1) * 20 if steps is None else np.asarray(steps)
    return Track(layers[: rows.shape[1]], steps, rows, rows, ~np.isfinite(rows))


def same(value: float, rows: int = 6, layers: int = 8) -> np.ndarray:
    """The same number for all layers at all looks."""
    return np.full((rows, layers), value)


def window(
    loss: Any = (),
    *,
    val: Any = None,
    every: int = 20,
    lr: Any = None,
    curves: Mapping[str, Any] | None = None,
    tracks: Mapping[Signal, Any] | None = None,
    changed: tuple[int, ...] = (),
    layers: tuple[str, ...] = LAYERS,
    looks: tuple[Looked, ...] = (),
    refused: str = "",
    **facts: Any,
) -> Window:
    """A window on so many losses; ``val`` are validation losses every so many steps; ``lr`` a number or a curve."""
    count = len(loss)
    found = {"loss/train": curve(loss)} if count else {}
    if val is not None:
        found["loss/val"] = curve(val, np.arange(1, len(val) + 1) * every)
    if lr is not None:
        found["lr"] = curve(np.broadcast_to(np.asarray(lr, dtype=float), (count,)))
    found |= {key: each if isinstance(each, Curve) else curve(each) for key, each in (curves or {}).items()}
    made = {
        key: each if isinstance(each, Track) else track(each, layers=layers) for key, each in (tracks or {}).items()
    }
    defaults: dict[str, Any] = {"layers": layers, "optimizers": ("SGD",), "epoch_length": every, "goal": 2 * count}
    known = Facts(**{**defaults, **facts})
    return Window("run", count, count // every, found, made, known, changed, looks=looks, refused=refused)


def looked(count: int = 200, *, times: int = 4, every: int = 7, **answers: Any) -> tuple[Looked, ...]:
    """Looks at steps of a window of so many; an answer may be a function of the look's number."""
    made = []
    for place in range(times):
        given = {name: each(place) if callable(each) else each for name, each in answers.items()}
        made.append(Looked(count - (times - 1 - place) * every, 32, **given))
    return tuple(made)
