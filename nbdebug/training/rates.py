"""Parameter groups as the person sees them: a learning rate each, as asked for and as in force. Training thread.

A learning rate under a schedule is a factor: the schedule keeps writing its own values, and each update runs with them
times the factor (see :mod:`nbdebug.training.update`). Without a schedule the group's ``lr`` is written directly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import Optimizer, lr_scheduler

from nbdebug.training.trainer import Trainer

Rate = float | torch.Tensor


@dataclass
class RateGroup:
    """A parameter group of an optimizer, with the factor that the person put on its schedule (1: untouched)."""

    name: str
    optimizer: Optimizer
    index: int
    scheduled: bool
    has_peak: bool
    first_lr: float
    factor: float = 1.0

    @property
    def options(self) -> dict[str, Any]:
        """The optimizer's own group."""
        return self.optimizer.param_groups[self.index]

    @property
    def base(self) -> float:
        """What a schedule scales: its peak where it has one (one-cycle, cyclic), else its start."""
        start = self.options.get("initial_lr", self.first_lr)
        return float(self.options.get("max_lr", start) if self.has_peak else start)

    @property
    def asked(self) -> float:
        """The learning rate as asked for, before the schedule's own factor."""
        return self.base * self.factor if self.scheduled else float(self.options["lr"])

    @property
    def in_force(self) -> float:
        """The learning rate that the next update uses."""
        return float(self.options["lr"]) * self.factor

    @property
    def is_on_device(self) -> bool:
        """Whether the rate is a tensor that does not lie on the CPU."""
        rate = self.options["lr"]
        return isinstance(rate, torch.Tensor) and rate.device.type != "cpu"

    def ask(self, lr: float) -> None:
        """Ask for a learning rate."""
        if self.scheduled:
            self.factor = lr / self.base
        elif isinstance(self.options["lr"], torch.Tensor):
            self.options["lr"].fill_(lr)
        else:
            self.options["lr"] = lr


def rate_groups(trainer: Trainer) -> Iterator[RateGroup]:
    """All parameter groups that have a learning rate, in the order of their optimizers."""
    scheduled = [_optimizer_of(scheduler) for scheduler in trainer.schedulers.values()]
    peaks = [_optimizer_of(scheduler) for scheduler in leaves(trainer.schedulers.values()) if _has_peak(scheduler)]
    for prefix, optimizer in trainer.optimizers.items():
        several = len(optimizer.param_groups) > 1
        has_schedule = any(each is optimizer or each is None for each in scheduled)
        for index, group in enumerate(optimizer.param_groups):
            if "lr" not in group:  # an optimizer of one's own need not have one
                continue
            own = str(group.get("name", index)) if several else ""
            name = ".".join(part for part in (prefix, own) if part)
            yield RateGroup(name, optimizer, index, has_schedule, optimizer in peaks, float(group["lr"]))


def _optimizer_of(scheduler: Any) -> Any:
    return getattr(scheduler, "optimizer", getattr(scheduler, "_optimizer", None))


def leaves(schedulers: Iterable[Any]) -> Iterator[Any]:
    """Each scheduler, those inside chains and sequences in place of these."""
    for scheduler in schedulers:
        parts = getattr(scheduler, "_schedulers", None)
        if parts:
            yield from leaves(parts)
        else:
            yield scheduler


def _has_peak(scheduler: Any) -> bool:
    return isinstance(scheduler, (lr_scheduler.OneCycleLR, lr_scheduler.CyclicLR))


def own_rate_tensor(group: RateGroup, groups: Sequence[RateGroup]) -> None:
    """Groups of an optimizer made with one rate tensor share it; to change one of them, it needs its own."""
    lr = group.options["lr"]
    shared = any(other is not group and other.options["lr"] is lr for other in groups)
    if isinstance(lr, torch.Tensor) and shared:
        group.options["lr"] = lr.clone()


def rate_in_force(group: RateGroup) -> Rate:
    """As :attr:`RateGroup.in_force`, but nothing is brought from a device."""
    rate: Rate = group.options["lr"]
    return rate * group.factor if group.is_on_device else float(rate) * group.factor
