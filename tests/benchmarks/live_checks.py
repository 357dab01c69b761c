"""What a judgement of the live checks costs: ``python -m tests.benchmarks.live_checks``. Prints only.

A window of a real journal, with samples of 50 layers and of 500: numpy operations and calls in putting it together and
in judging it, milliseconds, and the share of training time at the pace that judgements keep, beside the budget.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from nbdebug.checks.live.registry import live_checks, wanted_signals
from nbdebug.checks.live.watch import Watch
from nbdebug.checks.live.window import Facts, Window
from nbdebug.checks.parameters import Parameters
from nbdebug.debugger_live import SHARE, window_of
from nbdebug.journal.journal import Journal
from nbdebug.records.frames import Frame, Rows
from nbdebug.records.layers import LayerValues
from nbdebug.records.runs import Run
from nbdebug.records.signals import Series, Signal, Split
from tests.checks.live.counting import calls, counted, operations

STEPS, EVERY = 400, 5
BUDGET = 0.05  # of the time, that watching may take in all
ROUNDS = 20
PARAMETERS = Parameters([parameter for check in live_checks() for parameter in check.parameters])
SOUND = {Signal.UPDATE_RATIO: 1e-3, Signal.WEIGHT_GROWTH: 1.1}
NOTHING = (Signal.UNITS_DEAD, Signal.INPUT_UNITS_DEAD, Signal.GRADIENT_ZERO, Signal.SATURATED)


def journal(layers: int, *, faulty: bool = False) -> Journal:
    """A run that learns, or one that stands still with dead and saturated layers, so many of them."""
    made = Journal(None)
    made.begin_run(Run("main"))
    steps = np.arange(1, STEPS + 1)
    random = np.random.default_rng(0)
    loss = 2.0 * np.exp(-steps / 60) * (1 - faulty) + 2.0 * faulty + 0.02 * random.standard_normal(STEPS)
    series = (Series(Signal.LOSS, split=Split.TRAIN), Series(Signal.LEARNING_RATE), Series(Signal.GRADIENT_NORM))
    values = np.stack([loss, np.full(STEPS, 0.1), np.full(STEPS, 1.0)], axis=1)
    made.record_rows(Rows("main", 0, series, steps, values))
    names = tuple(f"layer{place}" for place in range(layers))
    signals = tuple(wanted_signals())
    sizes = np.array([SOUND.get(each, 0.95 * faulty if each in NOTHING else 1.0) for each in signals])
    for step in range(EVERY, STEPS + 1, EVERY):
        table = np.repeat(sizes[:, None], layers, axis=1) * (1 + 0.01 * random.random((len(signals), layers)))
        made.record(Frame("main", step, 0, (), 1, LayerValues(names, signals, table, np.ones(table.shape, np.bool_))))
    return made


def facts(layers: int) -> Facts:
    """What is known of such a run besides."""
    names = tuple(f"layer{place}" for place in range(layers))
    return Facts(names, dict.fromkeys(names, "ReLU"), 20, 2 * STEPS, baseline=2.0, optimizers=("SGD",))


def built(made: Journal, layers: int) -> Window:
    """The window on it."""
    return window_of(made, "main", STEPS, STEPS // 20, facts(layers))


def judgement(window: Window) -> Callable[[], object]:
    """A judgement by checks that have judged before."""
    watch = Watch()
    watch.judge(window, PARAMETERS)
    return lambda: watch.judge(window, PARAMETERS)


def _took_ms(action: Callable[[], object]) -> float:
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        action()
        took.append(time.perf_counter() - began)
    return 1e3 * float(np.median(took))


def main() -> None:
    """Print the table."""
    print(f"{len(live_checks())} live checks, a window of {STEPS} steps and {STEPS // EVERY} samples of all layers\n")
    print("| run | layers | operations | numpy calls | window ms | judgement ms | next after s | share of the budget |")
    print("|---|---|---|---|---|---|---|---|")
    for faulty in (False, True):
        for layers in (50, 500):
            made = journal(layers, faulty=faulty)
            window = built(made, layers)
            counted_window = counted(window)
            judge, judge_counted = judgement(window), judgement(counted_window)
            build_ms, judge_ms = _took_ms(lambda m=made, n=layers: built(m, n)), _took_ms(judge)
            entries = calls(judge) + calls(lambda m=made, n=layers: built(m, n))
            print(
                f"| {'stands still' if faulty else 'learns'} | {layers} | {operations(judge_counted)} | {entries} | "
                f"{build_ms:.2f} | {judge_ms:.2f} | {(build_ms + judge_ms) / 1e3 / SHARE:.1f} | {SHARE / BUDGET:.0%} |"
            )


if __name__ == "__main__":
    main()
