"""How good the rates are that ``find_lr`` suggests: ten small problems, each trained on a grid of rates, too.

``python -m tests.benchmarks.find_lr [seeds] [every]`` prints the table. A rate's score is how much of the fall of the
best rate of the grid it misses: (loss - best) / (first - best), the loss over all data after so many steps; 0 is none.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from nbdebug import Debugger, Trainer
from nbdebug.records.finder import LrCurve

STEPS = 120
GRID = np.geomspace(1e-5, 3.0, 12)
GOOD = 0.1


@dataclass(frozen=True)
class Problem:
    """Data, a model, a loss and an optimizer, each made anew; ``optimizer`` takes parameters and a rate."""

    name: str
    data: Callable[[], tuple[torch.Tensor, torch.Tensor]]
    model: Callable[[], nn.Module]
    loss_fn: Any
    optimizer: Callable[[Any, float], torch.optim.Optimizer]
    batch: int = 16


def sgd(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr)


def momentum(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr, momentum=0.9)


def adam(parameters: Any, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(parameters, lr)


def regression() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(256, 10)
    return x, x @ torch.randn(10, 1) + 0.3 * torch.randn(256, 1)


def clusters() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(0, 5, (256,))
    return torch.randn(5, 10)[y] * 1.5 + torch.randn(256, 10), y


def signs() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(256, 12)
    return x, ((x @ torch.randn(12, 1) + 0.5 * torch.randn(256, 1)) > 0).float()


def pictures() -> tuple[torch.Tensor, torch.Tensor]:
    y = torch.randint(0, 4, (256,))
    return F.interpolate(torch.randn(4, 1, 4, 4), 8)[y] + 0.8 * torch.randn(256, 1, 8, 8), y


def words(length: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(0, 20, (256, length))
    return x, (torch.randn(20, 4)[x].sum(1)).argmax(1)


def sequences() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randint(0, 8, (256, 5))
    return x, x[:, -3:].sum(1) // 6


def copies() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(256, 3) @ torch.randn(3, 16) + 0.1 * torch.randn(256, 16)
    return x, x


def labels() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(256, 12)
    return x, (x @ torch.randn(12, 6) + 0.5 * torch.randn(256, 6) > 0.5).float()


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.lstm, self.head = nn.Embedding(8, 12), nn.LSTM(12, 16, batch_first=True), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(x))[0][:, -1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.embed, self.encoder = nn.Embedding(20, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embed(x)).mean(1))


def mlp(*sizes: int, act: Callable[[], nn.Module] = nn.ReLU) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        parts: list[nn.Module] = []
        for a, b in pairwise(sizes):
            parts += [nn.Linear(a, b), act()]
        return nn.Sequential(*parts[:-1])

    return make


def cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )  # fmt: skip


def bag() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(20, 16), nn.Linear(16, 4))


XENT, BITS, MSE = F.cross_entropy, F.binary_cross_entropy_with_logits, F.mse_loss
KINDS: dict[str, tuple[Any, Any, Any]] = {
    "linear regression": (regression, lambda: nn.Linear(10, 1), MSE),
    "MLP classification": (clusters, mlp(10, 32, 32, 5), XENT),
    "CNN": (pictures, cnn, XENT),
    "LSTM": (sequences, Lstm, XENT),
    "embedding bag": (words, bag, XENT),
    "autoencoder": (copies, mlp(16, 24, 3, 24, 16, act=nn.Tanh), MSE),
    "deep tanh net": (clusters, mlp(10, *[16] * 8, 5, act=nn.Tanh), XENT),
    "logistic regression": (signs, lambda: nn.Linear(12, 1), BITS),
    "transformer": (words, Transformer, XENT),
    "multi-label": (labels, mlp(12, 32, 6), BITS),
}
OPTIMIZERS = {"SGD": sgd, "momentum": momentum, "Adam": adam}
USUAL = ["SGD", "momentum", "momentum", "Adam", "Adam", "SGD", "Adam", "SGD", "Adam", "momentum"]  # as one would
PROBLEMS = [Problem(name, *KINDS[name], OPTIMIZERS[kind]) for name, kind in zip(KINDS, USUAL, strict=True)]


@dataclass(frozen=True)
class Made:
    """One problem, from one seed: what the finder said, and what the grid came to."""

    curve: LrCurve
    first: float
    grid: list[float]
    seconds: float
    train: Callable[[float], float]

    def missed(self, rate: float | None) -> float:
        """The share of the best fall that a rate misses."""
        best = min(self.grid)
        return 1.0 if rate is None else (min(self.train(rate), 10 * self.first) - best) / (self.first - best)


def make(problem: Problem, seed: int = 0, steps: int = STEPS) -> Made:
    """Find rates for a problem, and train it on the grid."""
    began = time.perf_counter()
    torch.manual_seed(seed)
    data = TensorDataset(*problem.data())

    def fresh(rate: float) -> tuple[nn.Module, torch.optim.Optimizer, DataLoader[Any]]:
        torch.manual_seed(seed + 1)
        model = problem.model()
        return model, problem.optimizer(model.parameters(), rate), DataLoader(data, problem.batch, shuffle=True)

    def loss_of(model: nn.Module) -> float:
        with torch.no_grad():
            loss = float(problem.loss_fn(model.eval()(data.tensors[0]), data.tensors[1]))
        return loss if np.isfinite(loss) else 1e9

    def train(rate: float) -> float:
        model, optimizer, loader = fresh(rate)
        done = 0
        while done < steps:
            for x, y in loader:
                optimizer.zero_grad()
                loss = problem.loss_fn(model(x), y)
                loss.backward()
                optimizer.step()
                done += 1
                if done == steps:
                    break
        return loss_of(model)

    model, optimizer, loader = fresh(1e-3)
    first = loss_of(model)
    model.train()
    debugger = Debugger(model, Trainer(optimizer, problem.loss_fn, loader), journal=None)
    curve = debugger.find_lr()
    debugger.close()
    grid = [train(float(rate)) for rate in GRID]
    return Made(curve, first, grid, time.perf_counter() - began, train)


def main(seeds: int = 5, every: bool = False) -> None:
    """Print the table; of ``every`` problem with every optimizer, if asked."""
    problems = PROBLEMS
    if every:
        problems = [Problem(f"{n}, {o}", *KINDS[n], OPTIMIZERS[o]) for n in KINDS for o in OPTIMIZERS]
    good = total = 0
    print(f"{'problem':<32}{'best of grid':>13}" + "".join(f"{n:>12}" for n in ("suggested", "missed", "worst", "s")))
    for problem in problems:
        found = [make(problem, 100 * seed) for seed in range(seeds)]
        missed = [made.missed(made.curve.suggestion) for made in found]
        good, total = good + sum(each <= GOOD for each in missed), total + len(missed)
        best = statistics.geometric_mean([float(GRID[int(np.argmin(made.grid))]) for made in found])
        rates = [made.curve.suggestion for made in found if made.curve.suggestion]
        told = statistics.geometric_mean(rates) if rates else float("nan")
        seconds = statistics.median(made.seconds for made in found)
        print(
            f"{problem.name:<32}{best:>13.1e}{told:>12.1e}{np.median(missed):>12.1%}{max(missed):>12.1%}{seconds:>12.1f}",
            flush=True,
        )
    print(f"{good} of {total} within {GOOD:.0%}")


if __name__ == "__main__":
    main(*[int(each) for each in sys.argv[1:] if each.isdigit()], every="every" in sys.argv)
