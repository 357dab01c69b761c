"""How often the debugger's verdict is right: ``python -m tests.benchmarks.verdict_live [pairs]``. Prints only.

Real runs of a small net on scikit-learn's digits, each compared by ``debugger.compare`` with six other seeds: against a
run that differs by its seed alone, and against one with another learning rate. How large the effect of a rate is, in
deviations from seed to seed, is read off all the reruns of that rate together.
"""

from __future__ import annotations

import io
import math
import statistics
import sys
import time
from collections import Counter, defaultdict
from contextlib import redirect_stdout

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.comparison import Comparison

STEPS = 54
RATE = 0.1
FACTORS = (0.87, 0.9, 0.92, 0.95, 0.97, 1.03, 1.05, 1.08, 1.12, 1.16)


def debugged(seed: int) -> Debugger:
    torch.manual_seed(seed)
    loaded = load_digits()
    images, labels = torch.tensor(loaded.data, dtype=torch.float32) / 16, torch.tensor(loaded.target)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 10))
    train = DataLoader(TensorDataset(images[:1152], labels[:1152]), 64, shuffle=True)
    val = DataLoader(TensorDataset(images[1152:], labels[1152:]), 645)
    trainer = Trainer(torch.optim.SGD(model.parameters(), RATE, momentum=0.8), F.cross_entropy, train, val)
    return Debugger(model, trainer, journal=None, budget=0.001)


def compared(debugger: Debugger, **changes: object) -> Comparison:
    run = debugger.rerun(steps=STEPS, start="start", **changes)  # type: ignore[arg-type]
    with redirect_stdout(io.StringIO()):
        return debugger.compare("main", run, seeds=6)


def main(pairs: int) -> None:
    began = time.perf_counter()
    nulls: Counter[str] = Counter()
    planted: dict[float, list[Comparison]] = defaultdict(list)
    for index in range(pairs):
        debugger = debugged(index)
        debugger.run(steps=STEPS)
        nulls[str(compared(debugger, seed=index + 5_000).verdict)] += 1
        factor = FACTORS[index % len(FACTORS)]
        planted[factor].append(compared(debugger, lr=RATE * factor))
        debugger.close()
    print(f"{pairs} pairs of different seeds and no change: {dict(nulls)}")
    groups: dict[int, list[bool]] = defaultdict(list)
    for factor, made in sorted(planted.items()):
        rows = [each.rows[0] for each in made]
        noise = math.sqrt(statistics.fmean(row.noise**2 for row in rows))
        effect = statistics.fmean(row.difference for row in rows) / noise
        wanted = "better" if effect < 0 else "worse"
        verdicts = [str(each.verdict) for each in made]
        groups[min(int(abs(effect)), 5)] += [verdict == wanted for verdict in verdicts]
        print(f"rate x {factor}: effect {effect:+.1f} deviations, {dict(Counter(verdicts))}")
    for size, right in sorted(groups.items()):
        share = sum(right) / len(right)
        print(f"effects of {size} to {size + 1} deviations: {sum(right)} of {len(right)} right ({share:.0%})")
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
