"""Frames and records for the tests of the journal: no torch, and the same numbers for the same seed."""

from __future__ import annotations

import numpy as np

from nbdebug.journal.journal import Journal
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import BINS, CENTRE, Histograms, LayerValues
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
LAYER_SIGNALS = (
    Signal.GRADIENT_STATE,
    Signal.GRADIENT_MEAN,
    Signal.GRADIENT_MAX,
    Signal.UPDATE_RATIO,
    Signal.WEIGHT_NORM,
)
SHAPE = np.exp2(-0.5 * np.abs(np.abs(np.arange(BINS) - CENTRE) - 36.0))
SHAPE /= SHAPE.sum()


def frame(step: int, run: str = "main", *, sampled: bool = False, series: tuple[Series, ...] = SERIES) -> Frame:
    """The frame of a step: its numbers follow from step, run and series alone."""
    numbers = np.random.default_rng([step, len(run)]).normal(size=len(series))
    numbers[-1] = {0: np.nan, 1: np.inf, 2: -np.inf}.get(step % 50, numbers[-1])
    scalars = tuple(zip(series, numbers.tolist(), strict=True))
    if not sampled:
        return Frame(run, step, step // 100, scalars, 1)
    return Frame(run, step, step // 100, scalars, 1, layer_values(step), histograms(step))


def layer_values(step: int, layers: tuple[str, ...] = ("conv1", "fc")) -> LayerValues:
    """Numbers of layers that follow from their step; the last signal is measured on every other step only."""
    random = np.random.default_rng(step)
    values = random.random((len(LAYER_SIGNALS), len(layers)))
    values[0] = np.arange(len(layers)) % 3
    present = np.ones(values.shape, dtype=np.bool_)
    present[-1] = step % 2 == 0
    values[1] = {0: np.nan, 1: np.inf, 2: -np.inf}.get(step % 60, values[1])
    return LayerValues(layers, LAYER_SIGNALS, np.where(present, values, 0.0), present)


def histograms(step: int, layers: tuple[str, ...] = ("conv1", "fc")) -> tuple[Histograms, ...]:
    """Histograms that follow from their step; those of weights come on every fifth step only."""
    return tuple(
        histogram(signal, step, layers) for signal in (Signal.ACTIVATIONS, Signal.WEIGHTS)[: 2 if step % 5 == 0 else 1]
    )


def histogram(signal: Signal, step: int, layers: tuple[str, ...]) -> Histograms:
    """One kind of them, about a Gaussian's."""
    random, n = np.random.default_rng([step, len(signal)]), len(layers)
    counts = random.multinomial(4_096, SHAPE, n).astype(float)
    limit = 2.0 ** random.integers(-3, 5, n)
    return Histograms(signal, layers, counts, limit, np.full(n, 4_096), np.full(n, 100_000))


def rows(first: int, last: int, run: str = "main", series: tuple[Series, ...] = SERIES) -> Rows:
    """The numbers that :func:`frame` gives for the same steps, as a block."""
    steps = np.arange(first, last + 1)
    values = np.array([[value for _, value in frame(step, run, series=series).scalars] for step in steps.tolist()])
    return Rows(run, last // 100, series, steps, values)


def fill(journal: Journal, first: int, last: int, run: str = "main", *, sample_every: int = 7) -> None:
    """Record the steps ``first`` to ``last``, with a validation at every hundredth."""
    for step in range(first, last + 1):
        journal.record(frame(step, run, sampled=step % sample_every == 0))
        if step % 100 == 0:
            journal.record(Frame(run, step, step // 100, ((VAL, 1 / step),)))
