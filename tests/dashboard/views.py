"""Hand-made views for the dashboard's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.frames import Activations, GradientFlow
from nbdebug.records.runs import Run
from nbdebug.records.status import DropoutLayer, GroupRate, KnobStates, State, Status
from nbdebug.records.view import Points, RunView, View

NOTHING = Points(np.empty(0, np.int64), np.empty(0))


def points(values: list[float], first: int = 1) -> Points:
    return Points(np.arange(first, first + len(values), dtype=np.int64), np.array(values, np.float64))


def run(name: str = "main", train: list[float] | None = None, **changes: Any) -> RunView:
    curve = points(train) if train else NOTHING
    made = RunView(Run(name), train=curve, smooth=curve, val=NOTHING, metrics=(), steps=len(train or []))
    return replace(made, **changes)


def flow(size: int = 3, **changes: Any) -> GradientFlow:
    mean = 10.0 ** -np.arange(1, size + 1, dtype=np.float64)
    names = tuple(f"layer{i}" for i in range(size))
    made = GradientFlow(names, mean, mean * 3, mean / 2, mean * 1.5, np.zeros(size, np.int8))
    return replace(made, **changes)


def activations(size: int = 3, bins: int = 8, **changes: Any) -> Activations:
    counts = np.arange(size * bins, dtype=np.float64).reshape(size, bins)
    names = tuple(f"layer{i}" for i in range(size))
    ones = np.ones(size)
    return replace(Activations(names, counts, ones * 4, ones * 0, ones * 0.5, ones * 0), **changes)


def view(**changes: Any) -> View:
    knobs = KnobStates(
        (GroupRate("all", 3e-3, 2.1e-3),), "cosine", Clip(ClipMode.NORM, 1.0), (DropoutLayer("drop", 0.2),)
    )
    made = View(
        status=Status(state=State.RUNNING, step=3, batch=3, batches=10, goal_epoch=10, steps_per_s=5.0),
        knobs=knobs,
        runs=(run(train=[3.0, 2.0, 1.0]),),
        marks=(),
        gradients=flow(),
        gradients_step=3,
        activations=activations(),
        activations_step=3,
        findings=(),
        outcomes=(),
    )
    return replace(made, **changes)
