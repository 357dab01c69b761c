"""Schedules at work: a record becomes a scheduler of torch, or the rates that it will give. Training thread or any.

Every shape but the plateau is one ``LambdaLR`` whose factor is a closed form of the position. Torch's own schedulers of
the same names multiply the group's present rate step by step, so that their rounding errors add up, they can't begin in
the middle, and behind a ``SequentialLR`` some write the rates on being made; the closed forms are theirs, and the
tests compare them. Differences meant: after ``total`` a cosine stays at its floor, where ``CosineAnnealingLR`` rises
again, and a one-cycle stays at its last rate, where ``OneCycleLR`` raises an error; momentum is never cycled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, ReduceLROnPlateau

from nbdebug.records.errors import CommandError, collect
from nbdebug.records.schedules import Interval, Schedule, ScheduleKind


class Factor:
    """Position → share of the base rate. Its attributes are those of a schedule as plain numbers and text.

    A ``LambdaLR`` keeps them in its state, so that loading a state also brings back the schedule it was made with.
    """

    kind: str
    total: int | None
    warmup_steps: int
    warmup_start: float
    every: int
    gamma: float
    floor: float
    peak_at: float
    start_divisor: float
    final_divisor: float

    def __init__(self, schedule: Schedule) -> None:
        for each in fields(schedule):
            value = getattr(schedule, each.name)
            setattr(self, each.name, str(value) if each.name in ("kind", "interval") else value)

    def __call__(self, position: int) -> float:
        """The factor at a position, counted from 0."""
        if position < self.warmup_steps:
            return warm_up(position, self.warmup_steps, self.warmup_start)
        return float(_SHAPES[self.kind](self, position - self.warmup_steps))


def warm_up(position: int, steps: int, start: float) -> float:
    """Linearly from the start towards 1."""
    return start + (1 - start) * position / steps


def constant(factor: Factor, k: int) -> float:
    """No change."""
    return 1.0


def stairs(factor: Factor, k: int) -> float:
    """A stair every so many positions."""
    return factor.gamma ** (k // factor.every)


def exponential(factor: Factor, k: int) -> float:
    """The same share at each position."""
    return float(factor.gamma**k)


def cosine(factor: Factor, k: int) -> float:
    """Half a cosine, down to the floor."""
    length = (factor.total or 1) - factor.warmup_steps
    return between(1.0, factor.floor, min(k / length, 1.0))


def one_cycle(factor: Factor, k: int) -> float:
    """Up to the peak and down, each half a cosine."""
    total = factor.total or 2
    peak, end = max(factor.peak_at * total - 1, 0.0), total - 1.0
    first = 1 / factor.start_divisor
    if k < peak:
        return between(first, 1.0, k / peak)
    share = (k - peak) / (end - peak) if end > peak else 1.0
    return between(1.0, first / factor.final_divisor, min(share, 1.0))


def cyclic(factor: Factor, k: int) -> float:
    """Up and down in straight lines."""
    cycle, place = divmod(k, factor.every)
    x = 2 * place / factor.every
    height = (x if x <= 1 else 2 - x) * factor.gamma**cycle
    return factor.floor + (1 - factor.floor) * height


def between(start: float, end: float, share: float) -> float:
    """From start to end along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


_SHAPES = {
    "constant": constant,
    "step": stairs,
    "exponential": exponential,
    "cosine": cosine,
    "one_cycle": one_cycle,
    "cyclic": cyclic,
    "plateau": constant,
}


class WarmPlateau(ReduceLROnPlateau):
    """``ReduceLROnPlateau`` behind a warm-up, whose losses are not judged and do not count as the best so far."""

    def __init__(
        self, optimizer: Optimizer, base_rates: Sequence[float], *, gamma: float, patience: int, threshold: float,
        cooldown: int, floor: float, warmup_steps: int, warmup_start: float, done: int,
    ) -> None:  # fmt: skip
        super().__init__(
            optimizer,
            factor=gamma,
            patience=patience,
            threshold=threshold,
            cooldown=cooldown,
            min_lr=[rate * floor for rate in base_rates],
            eps=0.0,
        )
        self.base_lrs: list[float | torch.Tensor] = list(base_rates)
        self.warmup_steps = warmup_steps
        self.warmup_start = warmup_start
        self.last_epoch = done
        self.write_rates()

    def step(self, metrics: Any, epoch: int | None = None) -> None:  # type: ignore[override]
        """Take a step with the loss of this position."""
        if self.last_epoch >= self.warmup_steps:
            super().step(metrics)
            return
        self.last_epoch += 1
        self.write_rates()

    def write_rates(self) -> None:
        """Those of the warm-up, or the highest after it."""
        warm = self.last_epoch >= self.warmup_steps
        share = 1.0 if warm else warm_up(self.last_epoch, self.warmup_steps, self.warmup_start)
        for group, base in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            write_rate(group, float(base) * share)
        self._last_lr = [float(group["lr"]) for group in self.optimizer.param_groups]


def build(
    schedule: Schedule, optimizer: Optimizer, done: int = 0, *, base_rates: Sequence[float] | None = None
) -> LRScheduler:
    """A scheduler, as if it had taken ``done`` steps already; the groups' rates are set at once.

    ``base_rates``, one per group, are the rates at factor 1, by default the groups' present ones; they become the
    groups' ``initial_lr``. A rate that is a tensor is written in place. Of a plateau, ``done`` only counts for the
    warm-up. A state loaded into a scheduler leaves the groups' rates alone: they come back with the optimizer's.

    Raises:
        ConfigurationError: lists everything that can't work.
    """
    bases = present_rates(optimizer) if base_rates is None else [float(rate) for rate in base_rates]
    mistakes = [*schedule.mistakes(), *_rate_mistakes(bases, len(optimizer.param_groups)), *_done_mistakes(done)]
    if mistakes:
        raise collect(mistakes)
    for group, base in zip(optimizer.param_groups, bases, strict=True):
        group["initial_lr"] = base
    if schedule.kind is ScheduleKind.PLATEAU:
        names = ("gamma", "patience", "threshold", "cooldown", "floor", "warmup_steps", "warmup_start")
        return WarmPlateau(optimizer, bases, done=done, **{name: getattr(schedule, name) for name in names})
    return LambdaLR(optimizer, Factor(schedule), last_epoch=done - 1)


def preview(
    schedule: Schedule,
    base_rates: Sequence[float],
    steps: int,
    steps_per_epoch: int | None = None,
    *,
    done: int = 0,
    batch: int = 0,
    losses: Sequence[float] = (),
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The rates of the next training steps: their numbers 1 … n, shape (n,), and the rates, shape (n, groups).

    Equal, bit for bit, to what :func:`build` with the same ``done`` then gives. By epochs, ``steps_per_epoch`` says
    how many steps one has, and ``batch`` how many of the present one are over. A plateau stays after its warm-up for
    as long as the loss improves, which is assumed; given ``losses``, one for each position, it follows them.

    Raises:
        ConfigurationError: lists everything that can't work.
    """
    mistakes = [*schedule.mistakes(), *_rate_mistakes(list(base_rates), len(base_rates)), *_done_mistakes(done)]
    by_epoch = schedule.interval is Interval.EPOCH
    if by_epoch and not (isinstance(steps_per_epoch, int) and steps_per_epoch > 0):
        mistakes.append(f"a schedule by epochs needs steps_per_epoch, a whole number above 0, not {steps_per_epoch!r}")
    if mistakes:
        raise collect(mistakes)
    length = (steps_per_epoch or 1) if by_epoch else 1
    positions = (np.arange(steps) + (batch if by_epoch else 0)) // length
    count = int(positions[-1]) + 1 if steps else 0
    bases = np.array([float(rate) for rate in base_rates])
    if schedule.kind is ScheduleKind.PLATEAU:
        table = _plateau_rates(schedule, bases.tolist(), count, done, losses)
    else:
        factor = Factor(schedule)
        table = np.array([factor(done + k) for k in range(count)]).reshape(-1, 1) * bases
    return np.arange(1, steps + 1), table[positions] if steps else np.empty((0, len(bases)))


def present_rates(optimizer: Optimizer) -> list[float]:
    """Each group's learning rate as it now is, whatever wrote it."""
    return [float(group["lr"]) for group in optimizer.param_groups]


def bases_from_here(schedule: Schedule, optimizer: Optimizer, done: int = 0) -> list[float]:
    """Base rates with which the schedule, ``done`` positions in, goes on from the groups' present rates.

    So a schedule can follow any other without a jump, to rounding.

    Raises:
        CommandError: where the schedule's factor at that position is 0.
    """
    share = Factor(schedule)(done)
    if share == 0:
        raise CommandError(f"can't go on from the present rates: {schedule} is at 0 after {done} positions")
    return [rate / share for rate in present_rates(optimizer)]


def _plateau_rates(
    schedule: Schedule, bases: list[float], count: int, done: int, losses: Sequence[float]
) -> np.ndarray[Any, Any]:
    optimizer = torch.optim.SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in bases], lr=0.1)
    scheduler = build(schedule, optimizer, done, base_rates=bases)
    rows = []
    for k in range(count):
        rows.append(present_rates(optimizer))
        scheduler.step(losses[k] if k < len(losses) else -float(k))  # type: ignore[arg-type]
    return np.array(rows)


def _rate_mistakes(rates: Sequence[float], groups: int) -> list[str]:
    if len(rates) != groups:
        return [f"base_rates has {len(rates)} rates, but there are {groups} parameter groups"]
    return [
        f"base_rates[{index}]={rate!r} is out of range: it must be at least 0 and finite"
        for index, rate in enumerate(rates)
        if not (0 <= rate < math.inf)
    ]


def _done_mistakes(done: int) -> list[str]:
    right = isinstance(done, int) and not isinstance(done, bool) and done >= 0
    return [] if right else [f"done={done!r} must be a whole number, at least 0"]


def write_rate(group: dict[str, Any], rate: float) -> None:
    """In place where it is a tensor."""
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
