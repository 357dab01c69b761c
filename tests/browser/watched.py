"""Watched samples as a training might give them: pictures, tables, sequences, ids; classes, numbers, places."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.datasets import load_digits

from nbdebug.records.samples import SamplePass, Samples, SampleSet, Task
from nbdebug.records.stops import BatchView

PASSES = 12


def _view(kind: str, count: int, generator: np.random.Generator) -> BatchView:
    numbers = generator.normal(size=(count, 13))
    rows: Any = {"table": numbers, "sequence": np.cumsum(numbers, axis=1), "ids": np.rint(40 * abs(numbers))}.get(kind)
    pictures = np.repeat((load_digits().images[:count] * 15.9).astype(np.uint8)[..., None], 3, axis=3)
    return BatchView(
        "sequence" if kind == "ids" else kind,
        (f"batch[0] ({count}, …) float32",),
        tuple(range(count)),
        ("",) * count,
        pictures=pictures if kind == "pictures" else None,
        rows=rows,
        columns=() if rows is None else tuple(map(str, range(rows.shape[1]))),
    )


def classes(
    count: int = 60, *, kind: str = "pictures", classes: int = 10, number: int = 1, passes: int = PASSES
) -> Samples:
    """The last two have wrong labels, the one before them was forgotten, the first is hard."""
    generator = np.random.default_rng(0)
    truth = load_digits().target[:count].astype(np.float32) % classes
    ability = generator.uniform(0, 0.6, count)
    ability[-3:], ability[0] = (0.9, 0.1, 0.1), 0.05
    other = (truth + 1 + generator.integers(0, classes - 1, count)) % classes
    made = []
    for at in range(passes):
        own = 1 / (1 + np.exp(-(at + 1 - 9 * (0.7 - ability)) / 1.2))
        own[[0, -2, -1]] = (0.05, 0.04, 0.02)
        own[-3] = 0.8 if at < passes - 2 else 0.2
        right = own > 0.5
        predicted = np.where(right, truth, other)
        confidence = np.where(right, own, 1 - own)
        losses = -np.log(own) + np.arange(count) * 1e-3
        made.append(_pass(number, at, losses, predicted, confidence, 2 * own - 1, right))
    view = _view(kind, count, generator) if kind != "none" else None
    of = SampleSet(
        number, "main", "train", Task.CLASSES, np.arange(0, 7 * count, 7), truth, classes,
        tuple(f"{value:.0f}" for value in truth), view, f"{count} of {7 * count} training samples", "your loss",
    )  # fmt: skip
    return Samples(of, tuple(made))


def values(count: int = 80, *, kind: str = "table") -> Samples:
    """Numbers that come closer to what is true."""
    generator = np.random.default_rng(1)
    truth = generator.normal(size=(count, 1)) * 3
    noise = generator.normal(size=(count, 1))
    nothing = np.full(count, np.nan)
    made = []
    for at in range(PASSES):
        told = truth * (1 - 0.8**at) + noise * 0.4
        made.append(_pass(1, at, ((told - truth) ** 2)[:, 0], told, nothing, nothing, nothing))
    words = tuple(f"{value:.4g}" for value in truth[:, 0])
    of = SampleSet(
        1, "main", "train", Task.VALUES, np.arange(count), truth.astype(np.float32), 0, words,
        _view(kind, count, generator), f"{count} training samples", "your loss",
    )  # fmt: skip
    return Samples(of, tuple(made))


def places(count: int = 40) -> Samples:
    """Sequences of ids, of which ever more are foretold."""
    generator = np.random.default_rng(2)
    right = generator.uniform(0, 0.5, count)
    nothing = np.full(count, np.nan)
    made = [
        _pass(1, at, 3 - 2 * right - 0.05 * at, right + 0.04 * at, nothing, nothing, right + 0.04 * at)
        for at in range(PASSES)
    ]
    of = SampleSet(
        1, "main", "train", Task.PLACES, np.arange(count), np.zeros(0, np.float32), 0, (),
        _view("ids", count, generator), f"{count} training samples", "your loss",
    )  # fmt: skip
    return Samples(of, tuple(made))


MADE: dict[str, Callable[[], Samples]] = {
    "pictures": classes,
    "table": values,
    "sequence": lambda: classes(kind="sequence", classes=3),
    "ids": places,
    "many classes": lambda: classes(kind="none", classes=40),
}


def _pass(number: int, at: int, *parts: Any) -> SamplePass:
    losses, predicted, confidence, margins, right = (np.asarray(part, dtype=np.float32) for part in parts)
    return SamplePass("main", number, 40 * (at + 1), at + 1, losses, predicted, confidence, margins, right)
