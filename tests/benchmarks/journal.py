"""What the journal's file costs. By hand: python -m tests.benchmarks.journal [paced | million | layers]

``paced``: frames of 8 series at 400 a second, with and without the file, in turns: microseconds that ``record`` takes,
and the share of a core that the writer takes. ``million``: a million steps of 8 series: size, and time to open.
``layers``: a sample of 50 layers at every step, the most that a small model can give.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from nbdebug.debugger_journal import Journal as StoredJournal
from nbdebug.journal.journal import Journal
from nbdebug.journal.store import Store
from nbdebug.records.frames import Frame
from nbdebug.records.runs import Run
from tests.journal.made import SERIES, histograms, layer_values

FRAMES_PER_S = 400
ROUNDS = 5
ROUND_S = 4.0


def frames(count: int) -> list[Frame]:
    """Frames with 8 series each, made before the clock starts."""
    numbers = np.random.default_rng(0).normal(size=(count, len(SERIES))).tolist()
    return [Frame("main", step, 0, tuple(zip(SERIES, row, strict=True)), 1) for step, row in enumerate(numbers, 1)]


def paced(folder: Path) -> None:
    """With and without the file, in turns."""
    made = frames(int(FRAMES_PER_S * ROUND_S))
    for number in range(ROUNDS):
        for store in (None, Store(folder / f"{number}.sqlite")):
            journal = Journal(store)
            journal.begin_run(Run("main"))
            cpu = time.process_time() - _thread_s()
            took = _record_paced(journal, made)
            others = time.process_time() - _thread_s() - cpu
            journal.close()
            word = "file" if store else "memory"
            print(
                f"{word:>6}: record {np.median(took) * 1e6:5.1f} µs median, {np.mean(took) * 1e6:5.1f} mean, "
                f"{np.quantile(took, 0.99) * 1e6:5.0f} at 99 %, {max(took) * 1e3:.2f} ms at most; "
                f"writer {others / ROUND_S:.2%} of a core"
            )


def _record_paced(journal: Journal, made: list[Frame]) -> list[float]:
    took = []
    begin = time.perf_counter()
    for index, frame in enumerate(made):
        time.sleep(max(0.0, begin + index / FRAMES_PER_S - time.perf_counter()))
        before = time.perf_counter()
        journal.record(frame)
        took.append(time.perf_counter() - before)
    return took


def _thread_s() -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(threading.get_ident()))


def million(folder: Path) -> None:
    """As fast as it goes; the writer has to keep up or say what it thinned."""
    store = Store(folder / "million.sqlite")
    journal = Journal(store)
    journal.begin_run(Run("main"))
    began = time.perf_counter()
    for step in range(1, 1_000_001, 2_000):
        numbers = np.random.default_rng(step).normal(size=(2_000, len(SERIES))).tolist()
        for offset, row in enumerate(numbers):
            journal.record(Frame("main", step + offset, 0, tuple(zip(SERIES, row, strict=True)), 1))
        store.sync(60)
    journal.close()
    wrote_s = time.perf_counter() - began
    size_mb = store.path.stat().st_size / 2**20
    began = time.perf_counter()
    stored = StoredJournal.open(store.path)
    opened_s = time.perf_counter() - began
    view, live = stored._view(400).runs[0], journal.run_views(400)[0]
    same = np.array_equal(view.train.values, live.train.values) and np.array_equal(
        view.smooth.values, live.smooth.values
    )
    print(f"a million steps: written in {wrote_s:.1f} s, {size_mb:.0f} MiB, opened in {opened_s:.1f} s, same: {same}")


def layers(folder: Path) -> None:
    """Every step sampled."""
    names = tuple(f"blocks.{index}.linear" for index in range(50))
    made = [
        Frame("main", step, 0, frame.scalars, 1, layer_values(step, names), histograms(step, names))
        for step, frame in enumerate(frames(4_000), 1)
    ]
    store = Store(folder / "layers.sqlite")
    journal = Journal(store)
    journal.begin_run(Run("main"))
    cpu, began = time.process_time() - _thread_s(), time.perf_counter()
    _record_paced(journal, made)
    share = (time.process_time() - _thread_s() - cpu) / (time.perf_counter() - began)
    journal.close()
    size_mb = store.path.stat().st_size / 2**20
    print(f"50 layers at {FRAMES_PER_S} steps/s: writer {share:.2%} of a core, {size_mb:.1f} MiB")


if __name__ == "__main__":
    wanted = sys.argv[1:] or ["paced", "million", "layers"]
    with tempfile.TemporaryDirectory() as name:
        for part in (paced, million, layers):
            if part.__name__ in wanted:
                part(Path(name))
