"""How often a comparison's verdict is right: false alarms without an effect, and power by the size of the effect.

Run with ``python -m tests.benchmarks.verdict`` (minutes on two cores). Prints tables, asserts nothing. Sizes are in
sigma, the deviation of the parent's level from seed to seed. A verdict is right when it says better or worse as it is;
"wrong way" counts those that say the opposite. "Paired alone" is the plain paired t-test at the same alpha. A change is
unstable where the levels of its runs spread more than twice as much as the parent's: some of them blow up.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F

from nbdebug.records.comparison import Verdict
from nbdebug.records.signals import Series, Signal, Split
from nbdebug.records.view import Points
from nbdebug.tools.comparison import Pair, compare
from nbdebug.tools.evidence import ALPHA
from nbdebug.tools.student import two_sided_p

Floats = NDArray[np.float64]
TRAIN = Series(Signal.LOSS, split=Split.TRAIN)
VAL = Series(Signal.LOSS, split=Split.VAL)
ACCURACY = Series(Signal.METRIC, "accuracy", Split.VAL)
PAIRS = 7


@dataclass(frozen=True)
class Tally:
    """Of 100 comparisons: how many said within noise, undecided, lower, higher; and what the paired test alone says."""

    within: float
    undecided: float
    lower: float
    higher: float
    paired_lower: float
    paired_higher: float

    @property
    def line(self) -> str:
        return (
            f"within noise {self.within:5.1f} %   undecided {self.undecided:3.1f} %   "
            f"lower {self.lower:5.1f} %   higher {self.higher:5.1f} %   "
            f"(paired alone: {100 - self.paired_lower - self.paired_higher:5.1f} / {self.paired_lower:5.1f} / "
            f"{self.paired_higher:5.1f})"
        )


def tally(
    series: Series, steps: NDArray[np.int64], cases: Iterable[tuple[Floats, Floats]], *, rerun: bool = True
) -> Tally:
    """Compare each case, curves of parents and runs of shape ``(pairs, points)``."""
    said: list[Verdict] = []
    paired: list[int] = []
    for parents, runs in cases:
        pairs = [
            Pair({series: Points(steps, parent)}, {series: Points(steps, run)} if rerun or not index else None)
            for index, (parent, run) in enumerate(zip(parents, runs, strict=True))
        ]
        result = compare("parent", "run", pairs, first_step=int(steps[0]), last_step=int(steps[-1]))
        said.append(result.verdict)
        paired.append(paired_alone(runs - parents))
    better = Verdict.BETTER if series.signal is Signal.LOSS else Verdict.WORSE
    worse = Verdict.WORSE if better is Verdict.BETTER else Verdict.BETTER
    return Tally(
        *(
            100 * said.count(verdict) / len(said)
            for verdict in (Verdict.WITHIN_NOISE, Verdict.UNDECIDED, better, worse)
        ),
        *(100 * paired.count(sign) / len(paired) for sign in (-1, 1)),
    )


def third(curves: Floats) -> int:
    """How many points the level is the mean of."""
    points: int = curves.shape[-1]
    return math.ceil(points / 3)


def paired_alone(differences: Floats) -> int:
    """The sign of the difference where the plain paired t-test finds one, else 0."""
    levels = differences[:, -third(differences) :].mean(axis=1)
    error = levels.std(ddof=1) / np.sqrt(levels.size)
    if not error:
        return int(np.sign(levels[0]))
    t = float(levels.mean() / error)
    sign = 1 if t > 0 else -1
    return sign if two_sided_p(t, levels.size - 1) < ALPHA else 0


# Simulated curves


class Simulation:
    """Falling curves with correlated noise from step to step, and an offset from seed to seed."""

    STEPS = 120
    CARRY = 0.9

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.steps = np.arange(1, self.STEPS + 1)
        levels = self.luck(20_000)[:, -self.STEPS // 3 :].mean(axis=1)
        self.sigma = float(levels.std(ddof=1))

    def luck(self, count: int) -> Floats:
        """What chance adds to ``count`` curves."""
        noise = self.rng.normal(scale=0.05 * np.sqrt(1 - self.CARRY**2), size=(count, self.STEPS))
        noise[:, 0] /= np.sqrt(1 - self.CARRY**2)
        for step in range(1, self.STEPS):
            noise[:, step] += self.CARRY * noise[:, step - 1]
        return noise + self.rng.normal(scale=0.03, size=(count, 1))

    def case(self, effect: float, correlation: float, pairs: int = PAIRS, spread: float = 1) -> tuple[Floats, Floats]:
        """Parents and runs whose levels lie ``effect`` sigma apart and correlate within a pair."""
        shared, parent, run = (self.luck(pairs) for _ in range(3))
        shape = 0.5 + np.exp(-self.steps / 30)
        own = np.sqrt(1 - correlation)
        parents = shape + np.sqrt(correlation) * shared + own * parent
        runs = shape + spread * (np.sqrt(correlation) * shared + own * run) - effect * self.sigma
        return parents, runs

    def same_but_first(self) -> tuple[Floats, Floats]:
        """The original run had another seed than its parent; all others are alike."""
        parents, _ = self.case(0, 0)
        runs = parents.copy()
        runs[0] = self.case(0, 0, 1)[1][0]
        return parents, runs


def simulated() -> None:
    simulation = Simulation()
    nulls: dict[str, tuple[Callable[[], tuple[Floats, Floats]], bool]] = {
        "only pair 0 differs": (simulation.same_but_first, True),
        "independent, 7 pairs": (lambda: simulation.case(0, 0), True),
        "correlation 0.8, 7 pairs": (lambda: simulation.case(0, 0.8), True),
        "independent, 3 pairs": (lambda: simulation.case(0, 0, 3), True),
        "independent, 5 pairs": (lambda: simulation.case(0, 0, 5), True),
        "independent, 4 pairs": (lambda: simulation.case(0, 0, 4), True),
        "run 10 times as noisy": (lambda: simulation.case(0, 0, spread=10), True),
        "one run, 7 parents": (lambda: simulation.case(0, 0), False),
    }
    print("\nSimulated curves, no effect: 2,000 comparisons each")
    for name, (make, rerun) in nulls.items():
        found = tally(TRAIN, simulation.steps, (make() for _ in range(2_000)), rerun=rerun)
        print(f"  {name:26} {found.line}")
    for pairs, correlation, rerun in ((7, 0.0, True), (7, 0.8, True), (4, 0.0, True), (4, 0.8, True), (7, 0.0, False)):
        kind = f"{pairs} pairs, correlation {correlation}" if rerun else f"one run against {pairs} parents"
        print(f"\nSimulated curves, {kind}: 600 comparisons each, the run is lower by")
        for effect in (1, 2, 3, 4, 5):
            cases = (simulation.case(effect, correlation, pairs) for _ in range(600))
            print(f"  {effect} sigma   {tally(TRAIN, simulation.steps, cases, rerun=rerun).line}")


# Real training: a small network on handwritten digits, many runs at once as one batched matrix product


@dataclass(frozen=True)
class Regime:
    """A learning rate to train with, and what it is multiplied by in the branches; the parent's factor comes first."""

    name: str
    rate: float
    factors: tuple[float, ...]


CALM = Regime("calm", 0.3, (1.0, 0.99, 0.96, 0.92, 0.88, 0.85, 0.82, 0.79, 0.76, 0.72, 0.67, 1.1, 1.2, 1.3, 1.5, 2.0))
WILD = Regime("wild", 1.0, (1.0, 0.99, 0.95, 0.9, 0.8, 0.6, 1.03, 1.06, 1.08, 1.1, 1.12, 1.14, 1.17, 1.2, 1.25, 1.3))
SEEDS = 140
EPOCHS, BATCH, HIDDEN, DROPOUT = 8, 32, 32, 0.2
BINS = (0.25, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, np.inf)


@dataclass(frozen=True)
class Pool:
    """Curves of every run, shape ``(factors, seeds, points)``; the parent has factor 1."""

    train: Floats
    val: Floats
    accuracy: Floats
    train_steps: NDArray[np.int64]
    val_steps: NDArray[np.int64]


class Digits:
    """The data, split once; all runs branch from the same weights."""

    def __init__(self) -> None:
        x, y = load_digits(return_X_y=True)
        x, y = torch.tensor(x, dtype=torch.float32) / 16, torch.tensor(y)
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
        self.train, self.val = (x[order[:1280]], y[order[:1280]]), (x[order[1280:]], y[order[1280:]])
        self.batches = 1280 // BATCH

    def runs(self, regime: Regime, seeds: range) -> Pool:
        """Train every factor under every seed: a seed gives the order of batches and the dropout masks."""
        chance = [torch.Generator().manual_seed(1000 + seed) for seed in seeds]
        kinds = len(regime.factors)
        many = kinds * len(seeds)
        weights = [w.expand(many, *w.shape).clone().requires_grad_() for w in self.start()]
        rates = regime.rate * torch.tensor(regime.factors).repeat_interleave(len(seeds))
        losses_seen: list[Tensor] = []
        val_seen: list[Tensor] = []
        hits_seen: list[Tensor] = []
        for _ in range(EPOCHS):
            orders = torch.stack([torch.randperm(1280, generator=each) for each in chance])
            for batch in range(self.batches):
                picked = orders[:, batch * BATCH : (batch + 1) * BATCH]
                masks = torch.stack(
                    [(torch.rand(BATCH, HIDDEN, generator=g) >= DROPOUT) / (1 - DROPOUT) for g in chance]
                )
                x, y = (part[picked].repeat(kinds, *[1] * part.dim()) for part in self.train)
                losses = self.losses(self.forward(weights, x, masks.repeat(kinds, 1, 1)), y)
                for weight, gradient in zip(weights, torch.autograd.grad(losses.sum(), weights), strict=True):
                    weight.data -= rates.view(-1, 1, 1) * gradient
                losses_seen.append(losses.detach())
            with torch.no_grad():
                output = self.forward(weights, self.val[0].expand(many, -1, -1))
                target = self.val[1].expand(many, -1)
                val_seen.append(self.losses(output, target))
                hits_seen.append((output.argmax(-1) == target).double().mean(-1))
        train, val, accuracy = (
            torch.stack(c, -1).double().view(kinds, len(seeds), -1).numpy() for c in (losses_seen, val_seen, hits_seen)
        )
        ends = np.arange(1, EPOCHS + 1) * self.batches
        return Pool(train, val, accuracy, train_steps=np.arange(1, ends[-1] + 1), val_steps=ends)

    def start(self) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = [(64, HIDDEN), (1, HIDDEN), (HIDDEN, 10), (1, 10)]
        return [torch.randn(shape, generator=generator) * (shape[0] ** -0.5 if shape[0] > 1 else 0) for shape in shapes]

    @staticmethod
    def forward(weights: list[Tensor], x: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = torch.baddbmm(weights[1], x, weights[0]).relu()
        return torch.baddbmm(weights[3], hidden if mask is None else hidden * mask, weights[2])

    @staticmethod
    def losses(output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), target.flatten(), reduction="none").view(target.shape).mean(-1)


@dataclass(frozen=True)
class Trial:
    """One change held against the parent many times, by pairs of the same seeds or of different ones."""

    effect: float
    spread: float
    same_seeds: bool
    found: Tally

    @property
    def right(self) -> tuple[float, float]:
        """In per cent, with the verdict and with the paired test alone."""
        if self.effect < 0:
            return self.found.lower, self.found.paired_lower
        return self.found.higher, self.found.paired_higher

    @property
    def wrong_way(self) -> float:
        return self.found.higher if self.effect < 0 else self.found.lower


def real(groups: int = 150) -> None:
    trials: list[Trial] = []
    print(f"\nReal training, digits, no effect (parent against parent, other seeds): {10 * groups:,} comparisons each")
    for regime in (CALM, WILD):
        pool = Digits().runs(regime, range(SEEDS))
        curves = [(VAL, pool.val, pool.val_steps), (TRAIN, pool.train, pool.train_steps)]
        for series, values, steps in [*curves, (ACCURACY, pool.accuracy, pool.val_steps)]:
            trials += _trials(regime, series, values, steps, groups)
    print(f"\nReal training: {groups} comparisons of {PAIRS} pairs for each change of the rate, by size of its effect")
    for unstable in (False, True):
        for same_seeds in (True, False):
            print(
                f"  {'unstable' if unstable else 'steady'} changes, {'the same' if same_seeds else 'different'} seeds"
            )
            kind = [t for t in trials if t.same_seeds is same_seeds and (t.spread > 2) is unstable]
            for low, high in zip((0.0, *BINS), BINS, strict=False):
                _print_bin([trial for trial in kind if low <= abs(trial.effect) < high], low, high)


def _trials(regime: Regime, series: Series, curves: Floats, steps: NDArray[np.int64], groups: int) -> list[Trial]:
    rng = np.random.default_rng(0)
    levels = curves[..., -third(curves) :].mean(axis=-1)
    sigma = levels[0].std(ddof=1)

    def drawn(factor: int, same_seeds: bool, count: int) -> Iterable[tuple[Floats, Floats]]:
        for _ in range(count):
            seeds = rng.permutation(SEEDS)[: 2 * PAIRS]
            yield curves[0, seeds[:PAIRS]], curves[factor, seeds[:PAIRS] if same_seeds else seeds[PAIRS:]]

    null = tally(series, steps, drawn(0, False, 10 * groups))
    print(f"  {regime.name}, {series.text:12} {levels[0].mean():.4f}, sigma {sigma:.2g}   {null.line}")
    found = []
    for factor in range(1, len(regime.factors)):
        effect = float((levels[factor] - levels[0]).mean() / sigma)
        spread = float(levels[factor].std(ddof=1) / sigma)
        for same_seeds in (True, False):
            found.append(Trial(effect, spread, same_seeds, tally(series, steps, drawn(factor, same_seeds, groups))))
    return found


def _print_bin(trials: list[Trial], low: float, high: float) -> None:
    if trials:
        right, alone = np.mean([trial.right for trial in trials], axis=0)
        wrong, worst = np.mean([trial.wrong_way for trial in trials]), min(trial.right[0] for trial in trials)
        print(
            f"    {low:4} to {high:4} sigma: {len(trials):2} changes   right {right:5.1f} %, worst {worst:5.1f} %, "
            f"wrong way {wrong:4.2f} %   (paired alone: right {alone:5.1f} %)"
        )


def main() -> None:
    began = time.perf_counter()
    torch.set_num_threads(2)
    simulated()
    real()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
