"""Frames and records for the tests of the journal: no torch, and the same numbers for the same seed."""

from __future__ import annotations

import numpy as np

from nbdebug.journal.journal import Journal
from nbdebug.records.frames import Activations, Frame, GradientFlow
from nbdebug.records.signals import Series, Signal, Split

TRAIN = Series(Signal.LOSS, split=Split.TRAIN)
VAL = Series(Signal.LOSS, split=Split.VAL)
SERIES = (
    TRAIN,
    Series(Signal.METRIC, "accuracy", Split.TRAIN),
    Series(Signal.LEARNING_RATE),
    Series(Signal.CLIP_NORM),
    Series(Signal.CLIP_VALUE),
    Series(Signal.DROPOUT),
    Series(Signal.UPDATES),
    Series(Signal.GRADIENT_NORM),
)


def frame(step: int, run: str = "main", *, sampled: bool = False, series: tuple[Series, ...] = SERIES) -> Frame:
    """The frame of a step: its numbers follow from step, run and series alone."""
    numbers = np.random.default_rng([step, len(run)]).normal(size=len(series))
    numbers[-1] = {0: np.nan, 1: np.inf, 2: -np.inf}.get(step % 50, numbers[-1])
    scalars = tuple(zip(series, numbers.tolist(), strict=True))
    if not sampled:
        return Frame(run, step, step // 100, scalars, 1)
    return Frame(run, step, step // 100, scalars, 1, flow(step), activations(step))


def flow(step: int, layers: tuple[str, ...] = ("conv1", "fc")) -> GradientFlow:
    """A gradient flow that follows from its step."""
    mean, largest, *clipped = np.random.default_rng(step).random((4, len(layers)))
    return GradientFlow(layers, mean, largest, *clipped, np.zeros(len(layers), np.int8))


def activations(step: int, layers: tuple[str, ...] = ("conv1", "fc")) -> Activations:
    """Histograms that follow from their step."""
    random, n = np.random.default_rng(step), len(layers)
    counts = random.integers(0, 99, (n, 16)).astype(float)
    return Activations(layers, counts, 2.0 ** random.integers(0, 5, n), random.random(n), random.random(n), np.zeros(n))


def fill(journal: Journal, first: int, last: int, run: str = "main", *, sample_every: int = 7) -> None:
    """Record the steps ``first`` to ``last``, with a validation at every hundredth."""
    for step in range(first, last + 1):
        journal.record(frame(step, run, sampled=step % sample_every == 0))
        if step % 100 == 0:
            journal.record(Frame(run, step, step // 100, ((VAL, 1 / step),)))
