"""What a million steps take in memory, and how long it takes to read any of them.

By hand: python -m tests.benchmarks.long_runs [200 1000]; the numbers are layers. Prints the tables of long_runs.md.

Every step has eight numbers, which come in blocks of 20; every twentieth is sampled: 30 numbers and 6 histograms of
each layer. All is in memory, without a file. Times are of the processor, so that other processes do not count.
"""

from __future__ import annotations

import gc
import os
import resource
import sys
import time
from collections.abc import Callable

import numpy as np

from nbdebug.journal.history import History
from nbdebug.journal.journal import Journal
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import Histograms, LayerValues
from nbdebug.records.runs import Run
from nbdebug.records.signals import Signal
from nbdebug.records.view import Focus
from tests.journal.made import SERIES, SHAPE

STEPS = 1_000_000
SAMPLE_EVERY = 20
SHOWN_AT = (1_000, 10_000, 100_000, 1_000_000)
SIGNALS = 30
KINDS = (Signal.ACTIVATIONS, Signal.GRADIENTS, Signal.WEIGHTS, Signal.BIASES, Signal.CHANGES, Signal.DATA)
POOL = 16
REPEATS = 21

Sample = tuple[LayerValues, tuple[Histograms, ...]]


def samples(layers: int) -> list[Sample]:
    """A few samples that are used again and again, so that making them is no part of what is measured."""
    random = np.random.default_rng(0)
    names = tuple(f"blocks.{index // 6}.part{index % 6}" for index in range(layers))
    first = list(Signal).index(Signal.GRADIENT_MEAN)
    signals = (Signal.GRADIENT_NORM, *list(Signal)[first:])[:SIGNALS]
    present = np.ones((SIGNALS, layers), dtype=np.bool_)
    made = []
    for _ in range(POOL):
        values = LayerValues(names, signals, random.lognormal(-3.0, 1.0, present.shape), present)
        histograms = tuple(
            Histograms(
                kind,
                names,
                random.multinomial(4_096, SHAPE, layers).astype(float),
                2.0 ** random.integers(-8, 4, layers),
                np.full(layers, 4_096),
                np.full(layers, 250_000),
            )
            for kind in KINDS
        )
        made.append((values, histograms))
    return made


class Training:
    """A run that is recorded as fast as it goes."""

    def __init__(self, layers: int) -> None:
        self._samples = samples(layers)
        self._numbers = np.random.default_rng(1).normal(size=(64, SAMPLE_EVERY, len(SERIES)))
        self.journal = Journal()
        self.journal.begin_run(Run("main"))
        self.step = 0
        self.rows_s = self.samples_s = 0.0

    def go_on(self) -> None:
        """Twenty steps, the last one sampled."""
        index = self.step // SAMPLE_EVERY
        steps = np.arange(self.step + 1, self.step + SAMPLE_EVERY + 1)
        rows = Rows("main", 0, SERIES, steps, self._numbers[index % 64])
        values, histograms = self._samples[index % POOL]
        self.step += SAMPLE_EVERY
        frame = Frame("main", self.step, 0, (), 1, values, histograms)
        began = time.thread_time()
        self.journal.record_rows(rows)
        between = time.thread_time()
        self.journal.record(frame)
        self.rows_s += between - began
        self.samples_s += time.thread_time() - between


def resident_mb() -> float:
    """What the process holds."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def took_ms(look: Callable[[], object], before: Callable[[], object] = lambda: None) -> str:
    """Median and worst of several looks; ``before`` each something is done that does not count."""
    took = []
    for _ in range(REPEATS):
        before()
        began = time.thread_time()
        look()
        took.append(1e3 * (time.thread_time() - began))
    return f"{np.median(took):.2f} | {max(took):.2f}"


def reading(training: Training) -> list[str]:
    """Rows of a table: how long looks at the run take."""
    journal, history = training.journal, History(training.journal, lambda: "main")
    values = training._samples[0][0]
    layer, last = values.layers[len(values.layers) // 2], training.step
    focus = Focus(layer, Signal.GRADIENTS, values.signals[:6], (Signal.UPDATE_RATIO, Signal.GRADIENT_MEAN))
    found = []
    for where, first in (("start", 1), ("middle", last // 2), ("end", last - 10_000)):
        for key in ("loss/train", f"update_ratio/{layer}"):
            name = "loss" if key == "loss/train" else "a layer's update ratio"
            look = took_ms(lambda key=key, first=first: history.window(key, first, first + 10_000))
            found.append(f"| 10,000 steps at the {where}: {name} | {look} |")
    for key in ("loss/train", f"update_ratio/{layer}"):
        found.append(
            f"| all steps: {key.partition('/')[0]} | {took_ms(lambda key=key: history.window(key, 1, last))} |"
        )
    found.append(f"| a layer's histograms | {took_ms(lambda: history[f'gradients/{layer}'])} |")
    curves = took_ms(lambda: journal.run_views(400), training.go_on)
    found.append(f"| curves as drawn, after a new sample | {curves} |")
    bare = took_ms(lambda: journal.layers_view("main"), training.go_on)
    found.append(f"| layers as drawn, after a new sample: latest numbers and histograms | {bare} |")
    whole = took_ms(lambda: journal.layers_view("main", focus), training.go_on)
    found.append(f"| the same, 2 signals of all layers over time, a layer's story with 6 curves | {whole} |")
    found.append(f"| the same with nothing new | {took_ms(lambda: journal.layers_view('main', focus))} |")
    return found


def main(layers: int) -> None:
    """One run."""
    training = Training(layers)
    before, shown = resident_mb(), {}
    while training.step < STEPS:
        training.go_on()
        if training.step in SHOWN_AT:
            shown[training.step] = resident_mb() - before
    kept = training.journal.read("main", lambda run: run.layers.size_bytes) / 2**20
    blocks = STEPS / SAMPLE_EVERY
    print(f"\n## {layers:,} layers\n\n| steps | resident memory, MB more than before |\n|---|---|")
    for step, size_mb in shown.items():
        print(f"| {step:,} | {size_mb:.1f} |")
    print(f"\nOf that, arrays of layers: {kept:.1f} MB. ", end="")
    print(f"To record a block of 20 steps took {1e6 * training.rows_s / blocks:.0f} µs on average, ", end="")
    print(f"a sample {1e3 * training.samples_s / blocks:.2f} ms.\n")
    print("| read | median, CPU ms | worst, CPU ms |\n|---|---|---|")
    print("\n".join(reading(training)), flush=True)


if __name__ == "__main__":
    for number in [int(word) for word in sys.argv[1:]] or [200, 1_000]:
        child = os.fork()
        if not child:
            main(number)
            os._exit(0)
        os.waitpid(child, 0)
