"""Kills a writing process at random moments, and looks at what is in the file. By hand: python -m tests.journal.kill 50

The child writes a step every few milliseconds, and says on its standard output which it recorded, and when.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nbdebug.debugger_journal import Journal as StoredJournal
from nbdebug.journal.journal import Journal
from nbdebug.journal.store import Store
from nbdebug.records.runs import Mark, Run
from tests.journal.made import SERIES, frame

PACE_S = 0.003
ALLOWED_LOSS_S = 1.0


@dataclass(frozen=True)
class Survived:
    """What a kill left: steps recorded by the child and in the file, and how many seconds of recording were lost."""

    recorded: int
    stored: int
    lost_s: float


def write(path: str) -> None:
    """The child: record for ever."""
    journal = Journal(Store(path))
    journal.begin_run(Run("main"))
    for step in range(1, 1_000_000):
        journal.record(frame(step, sampled=step % 10 == 0))
        if step % 100 == 0:
            journal.mark(Mark("main", step, "a mark"))
        print(step, time.time(), flush=True)
        time.sleep(PACE_S)


def kill_once(path: Path, after_s: float) -> Survived:
    """Let a child write for so long, kill it, check the file, and say what was lost."""
    command = [sys.executable, "-m", "tests.journal.kill", "write", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        first = child.stdout.readline()
        time.sleep(after_s)
        child.kill()
        lines = [first, *child.stdout.readlines()]
    told = [line.split() for line in lines if line.endswith("\n")]
    when = {int(step): float(at) for step, at in told}
    stored = check(path)
    last = max(when)
    return Survived(
        last, stored, when[last] - when[stored] if 0 < stored < last else 0.0 if stored else when[last] - when[1]
    )


def check(path: Path) -> int:
    """The last step in the file; all up to it must be there, with the values that were recorded."""
    journal = StoredJournal.open(path)
    place = journal._reader.places["main"]
    if place.step:
        for index, series in enumerate(SERIES):
            steps, values = journal.history[series.text]
            assert steps.tolist() == list(range(1, place.step + 1)), series
            expected = [frame(step).scalars[index][1] for step in steps.tolist()]
            np.testing.assert_array_equal(values, expected)
        assert [mark.step for mark in journal.marks] == list(range(100, place.step + 1, 100))
    journal.close()
    return place.step


def main(rounds: int) -> None:
    """Kill so many children; prints what each lost."""
    with tempfile.TemporaryDirectory() as folder:
        lost = []
        for number in range(rounds):
            survived = kill_once(Path(folder) / f"{number}.sqlite", random.uniform(0.0, 2.0))
            lost.append(survived.lost_s)
            print(f"{number + 1}/{rounds}: {survived}")
            assert survived.lost_s <= ALLOWED_LOSS_S
        print(f"all open; lost {np.mean(lost):.2f} s on average, {max(lost):.2f} s at most")


if __name__ == "__main__":
    if sys.argv[1] == "write":
        write(sys.argv[2])
    else:
        main(int(sys.argv[1]))
