"""What snapshots cost: ``python -m tests.benchmarks.snapshots [rounds]``. Prints, asserts nothing.

The digits CNN, so many steps with snapshots every few steps and without, interleaved, with a run against itself (A/A)
beside it; then how far apart the snapshots of 5,000 steps lie, and how a budget holds for 25 million parameters.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.training import course

STEPS = 150


def digits(seed: int = 0) -> Debugger:
    """A small convolutional net on scikit-learn's digits, in epochs of 23 batches."""
    torch.manual_seed(seed)
    loaded = load_digits()
    images = torch.tensor(loaded.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(loaded.target)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.2), nn.Flatten(), nn.Linear(1024, 128), nn.ReLU(), nn.Linear(128, 10),
    )  # fmt: skip
    train = DataLoader(TensorDataset(images[:1437], labels[:1437]), 64, shuffle=True)
    val = DataLoader(TensorDataset(images[1437:], labels[1437:]), 256)
    trainer = Trainer(torch.optim.Adam(model.parameters(), 1e-3), F.cross_entropy, train, val)
    return Debugger(model, trainer, journal=None)


@contextmanager
def without_snapshots() -> Iterator[None]:
    """Only the start is kept."""
    kept = course.SHARE, course.SHARE_AT_CHANGES
    course.SHARE = course.SHARE_AT_CHANGES = 1e-12
    try:
        yield
    finally:
        course.SHARE, course.SHARE_AT_CHANGES = kept


def timed(debugger: Debugger) -> float:
    began = time.perf_counter()
    debugger.run(steps=STEPS)
    return (time.perf_counter() - began) / STEPS * 1e3


def cost(rounds: int) -> None:
    debuggers = [digits() for _ in range(3)]
    for debugger in debuggers:
        debugger.run(steps=30)
    times: list[list[float]] = [[], [], []]
    for index in range(rounds):
        for which in ((0, 1, 2), (2, 1, 0))[index % 2]:
            if which == 0:
                times[which].append(timed(debuggers[which]))
            else:
                with without_snapshots():
                    times[which].append(timed(debuggers[which]))
    snapshots, plain, again = (statistics.median(each) for each in times)
    taken = sum(info.reason != "start" for info in debuggers[0].snapshots)
    print(f"with snapshots {snapshots:.3f} ms a step, without {plain:.3f} and {again:.3f}; {taken} were taken")
    ratios = [a / ((b + c) / 2) for a, b, c in zip(*times, strict=True)]
    control = [b / c for b, c in zip(times[1], times[2], strict=True)]
    print(f"ratio with/without: {statistics.median(ratios):.4f}; A/A: {statistics.median(control):.4f}")
    for debugger in debuggers:
        debugger.close()


def own_time() -> None:
    """The time inside the taking of snapshots, as a share of the run's."""
    debugger, spent = digits(), []
    taking = debugger._session.course.take_or_refuse

    def measured(*args: object, **options: object) -> object:
        began = time.perf_counter()
        try:
            return taking(*args, **options)  # type: ignore[arg-type]
        finally:
            spent.append(time.perf_counter() - began)

    debugger.run(steps=30)
    debugger._session.course.take_or_refuse = measured  # type: ignore[method-assign]
    began = time.perf_counter()
    debugger.run(steps=5_000)
    total = time.perf_counter() - began
    share = sum(spent) / total
    print(f"5,000 steps in {total:.1f} s, {sum(spent):.3f} s of it ({share:.2%}) for {len(spent)} snapshots,")
    steps = sorted({info.step for info in debugger.snapshots})
    apart = max(b - a for a, b in zip(steps, [*steps[1:], debugger.status.step], strict=True))
    worst = max(debugger.rewind_cost(step).steps for step in range(1, debugger.status.step + 1))
    size = sum(info.size_bytes for info in debugger.snapshots) / 1e6
    print(f"at most {apart} steps apart: going back repeats at most {worst} steps; {size:.0f} MB in memory")
    debugger.close()


def large() -> None:
    """25 million parameters, a budget of 1 GiB."""
    model = nn.Sequential(nn.Linear(256, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1600))
    loader = [(torch.randn(8, 256), torch.randn(8, 1600)) for _ in range(10)]
    trainer = Trainer(torch.optim.Adam(model.parameters(), 1e-4), F.mse_loss, loader)
    debugger = Debugger(model, trainer, journal=None)
    shelf, most = debugger._session.course.shelf, 0
    for _ in range(12):
        debugger.run(steps=5)
        debugger.set(lr=debugger._session.knobs.groups[0].asked * 0.9)
        most = max(most, shelf.used_bytes)
    parameters = sum(p.numel() for p in model.parameters()) / 1e6
    took_ms = debugger._session.course._cost_s * 1e3
    print(
        f"{parameters:.1f} M parameters: {len(debugger.snapshots)} snapshots, at most {most / 2**20:,.0f} MiB, "
        f"{shelf.memory_bytes / 2**20:,.0f} allowed; one takes {took_ms:.0f} ms"
    )
    print("findings:", [finding.title for finding in debugger.findings])
    debugger.close()


if __name__ == "__main__":
    cost(int(sys.argv[1]) if len(sys.argv) > 1 else 8)
    large()
    own_time()
