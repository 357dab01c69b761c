"""The loss goes up and down with the period of an epoch: batches come in an order that belongs to what they hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nbdebug.checks.check import Say, Skip
from nbdebug.checks.live.check import LiveCheck
from nbdebug.checks.live.course import course, is_whole
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause, Picture, PictureKind, Remedy, Severity
from nbdebug.records.frames import Floats

EXPLAINED, RUNS, SIZE = "period_explained", "period_runs", "period_size"
EPOCHS = 3
FEWEST = 6  # batches an epoch
SLIGHT = 0.02  # of the level: a swing that is not worth a word


def judge(window: Window, say: Say) -> None:
    """What the place in the epoch explains of the loss, once each epoch's own course is taken away."""
    length = window.facts.epoch_length
    if length < FEWEST:
        raise Skip("epochs are too short to have a shape")
    seen = course(window, EPOCHS * length)
    if not is_whole(seen.steps) or seen.start <= 0:
        raise Skip("not every loss was kept")
    table = _level(_folded(*_without_trend(seen.steps, seen.values, length), length))
    shape = np.mean(table, axis=0)
    spread = float(np.mean(table**2))
    # Chance alone gives the mean of EPOCHS rows a share of one over their number.
    share = float(np.mean(shape**2)) / spread if spread > 0 else 0.0
    share = max(0.0, (share - 1 / EPOCHS) / (1 - 1 / EPOCHS))
    runs = float(np.mean(shape[1:] * shape[:-1]) / np.mean(shape**2)) if np.any(shape) else 0.0
    periodic = say.measure("share of the loss's variation that the place in the epoch explains", share, EXPLAINED)
    in_runs = say.measure("likeness of neighbouring places", runs, RUNS)
    size = float(np.std(shape)) / max(abs(seen.now), 1e-12)
    large = say.measure("swing of the loss within an epoch, of its level", size, SIZE)
    if periodic and in_runs and size > SLIGHT:
        _tell(shape, large and not seen.has_learnt, say)


def _without_trend(steps: NDArray[np.int64], values: Floats, length: int) -> tuple[NDArray[np.int64], Floats]:
    """Beside the mean over one epoch around each step, which has no period of an epoch; and the steps."""
    whole = np.arange(steps[0], steps[-1] + 1)
    filled = np.interp(whole, steps, values)
    around = np.convolve(filled, np.full(length, 1 / length), mode="valid")
    first = length // 2
    return whole[first : first + len(around)], filled[first : first + len(around)] - around


def _folded(steps: NDArray[np.int64], values: Floats, length: int) -> Floats:
    """The last whole epochs, one a row."""
    last = int(steps[-1]) // length
    first = -(-(int(steps[0]) - 1) // length)
    if last - first < EPOCHS:
        raise Skip("too few whole epochs")
    start = (last - EPOCHS) * length + 1 - int(steps[0])
    return values[start : start + EPOCHS * length].reshape(EPOCHS, length)


def _level(table: Floats) -> Floats:
    """Each row without its mean and its slope."""
    line = np.linspace(-1, 1, table.shape[1])
    table = table - table.mean(axis=1, keepdims=True)
    return table - (table @ line / (line @ line))[:, None] * line


def _tell(shape: Floats, strong: bool, say: Say) -> None:
    say.find(
        Cause.UNSHUFFLED_DATA,
        Severity.WARNING if strong else Severity.INFO,
        "The loss goes with the place in the epoch",
        "In each epoch the loss rises and falls at the same places, in runs: neighbouring batches hold what belongs "
        "together, so that the network learns one kind of sample and forgets another.",
        confidence=0.7 if strong else 0.5,
        pictures=(Picture(PictureKind.LINES, "loss over an epoch, beside its mean", shape[None], ("loss",)),),
        remedies=(Remedy("Shuffle the training data.", code="DataLoader(dataset, batch_size, shuffle=True)"),),
    )


CHECK = LiveCheck(
    "unshuffled_data_live",
    "the order of the batches says nothing",
    judge,
    (Cause.UNSHUFFLED_DATA,),
    parameters=(
        Parameter(EXPLAINED, 0.6, "share of the loss's variation that the place in the epoch may explain", 0.0, 1.0),
        Parameter(RUNS, 0.5, "likeness of the loss at neighbouring places", 0.0, 1.0),
        Parameter(SIZE, 0.2, "swing of the loss within an epoch, of its level"),
    ),
    source="37 reasons why your neural network is not working: shuffle the dataset",
    steps=4 * FEWEST,
)
