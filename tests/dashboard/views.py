"""Hand-made views for the dashboard's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nbdebug.records.commands import Clip, ClipMode
from nbdebug.records.comparison import Comparison, SeriesComparison, Verdict
from nbdebug.records.frames import Activations, GradientFlow
from nbdebug.records.runs import Mark, Run, RunKind
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.snapshots import Reason, SnapshotInfo
from nbdebug.records.status import DropoutLayer, GroupRate, KnobStates, State, Status
from nbdebug.records.view import Points, Rewindable, RunView, View

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


def snapshot(name: str = "s", run: str = "main", step: int = 0, **changes: Any) -> SnapshotInfo:
    made = SnapshotInfo(name, run, step, step // 10, Reason.EPOCH, 1_200_000)
    return replace(made, **changes)


def branch(name: str, parent: str, step: int, train: list[float], **changes: Any) -> RunView:
    """A run that left its parent after ``step`` steps. ``kind``, ``title`` and the like go to its Run."""
    about = {key: changes.pop(key) for key in list(changes) if key in Run.__dataclass_fields__}
    curve = points(train, step + 1)
    about = {"change": name, **about}
    made = RunView(Run(name, parent, step, **about), curve, curve, NOTHING, metrics=(), steps=len(train))
    return replace(made, **changes)


def noise(parent: str, count: int, step: int = 100) -> tuple[RunView, ...]:
    """Reruns under other seeds."""
    return tuple(branch(f"{parent} seed {i}", parent, step, [9.0], kind=RunKind.NOISE, seed=i) for i in range(count))


def comparison(**changes: Any) -> Comparison:
    steps = np.arange(101, 301, dtype=np.int64)
    wave = 0.02 * np.sin(steps / 7)
    levels = {"parent_level": 0.187, "run_level": 0.142, "difference": -0.045}
    curves = {
        "parent_curve": Points(steps, 0.187 + 20 / steps + wave),
        "run_curve": Points(steps, 0.142 + 20 / steps + wave / 2),
        "difference_curve": Points(steps, -0.045 - wave / 2),
    }
    sure = {"interval": (-0.052, -0.038), "noise": 0.009, "confidence": 0.998, "verdict": Verdict.BETTER}
    row = SeriesComparison(Series(Signal.LOSS, split=Split.VAL), True, **levels, **sure, **curves)
    accuracy = replace(
        row, series=Series(Signal.METRIC, "accuracy", Split.VAL), lower_is_better=False, parent_level=0.941,
        run_level=0.944, difference=0.003, interval=(-0.002, 0.008), confidence=0.7, verdict=Verdict.WITHIN_NOISE,
    )  # fmt: skip
    sentence = (
        "lr 0.02 is better than main: validation loss 0.187 → 0.142 (−24 %, 95 % interval −0.052 to −0.038), 99.8 % "
        "sure; other seeds alone move it by ±0.009."
    )
    made = Comparison("main", "lr 0.02", 101, 300, 6, (row, accuracy), Verdict.BETTER, sentence)
    return replace(made, **changes)


def descent(first: float, last: float, steps: int, seed: int) -> list[float]:
    """A training loss that falls, with noise."""
    noise = np.random.default_rng(seed).normal(0, 0.08, steps)
    curve: list[float] = (last + (first - last) * np.exp(-np.arange(steps) / (0.3 * steps)) * np.exp(noise)).tolist()
    return curve


def forest(**changes: Any) -> View:
    """A view with all that time travel shows: branches of branches, noise runs, snapshots, marks, a comparison."""
    steps = np.arange(50, 401, 50)
    val = Points(steps.astype(np.int64), 0.25 + 1.8 * np.exp(-steps / 110.0))
    main = run(
        train=descent(2.3, 0.15, 400, 0),
        val=val,
        metrics=(("accuracy/train", 0.97), ("accuracy/val", 0.941)),
        steps=400,
    )
    main = replace(main, run=Run("main", note="the recipe of the paper"))
    lower = branch(
        "lr 0.02", "main", 100, descent(1.0, 0.1, 200, 1), title="calmer", pinned=True,
        metrics=(("accuracy/train", 0.981), ("accuracy/val", 0.944)),
    )  # fmt: skip
    clipped = branch("clip norm 1", "lr 0.02", 200, descent(0.4, 0.08, 200, 2), caveat="other batches")
    higher = branch("lr 0.5", "main", 250, descent(0.9, 0.6, 90, 3), metrics=(("accuracy/val", 0.71),))
    made = view(
        runs=(main, lower, *noise("main", 6), *noise("lr 0.02", 6), clipped, higher),
        marks=(Mark("lr 0.02", 100, "lr 0.05 → 0.02"), Mark("lr 0.5", 250, "lr 0.5"), Mark("main", 330, "dropout 0.3")),
        snapshots=(
            snapshot("start", reason=Reason.START),
            *(snapshot(f"epoch {i}", step=50 * i) for i in range(1, 9)),
            snapshot("before the bump", step=345, reason=Reason.REQUEST, pinned=True, path="/home/me/runs/bump.nbd"),
            snapshot("best of main", step=400, best=True),
            snapshot("best of lr 0.02", run="lr 0.02", step=300, best=True),
        ),
        rewindable=Rewindable(400, tuple(range(0, 401, 50)), step_s=0.008, restore_s=0.05),
        status=Status(
            state=State.PAUSED, step=400, last_step=400, epoch=8, batches=50, goal_epoch=10, steps_per_s=120,
            remaining_s=0.8, watching=0.031,
        ),
        comparison=comparison(),
    )  # fmt: skip
    return replace(made, **changes)
