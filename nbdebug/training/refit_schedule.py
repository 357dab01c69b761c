"""Schedules set and put back while training. Training thread, at a safe point.

A schedule that the user gave is put aside when another takes its place, with its state and the rates it had left in
the parameter groups, so that it can go on from there later.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch.optim import Optimizer

from nbdebug.records.commands import SetSchedule
from nbdebug.records.errors import CommandError
from nbdebug.records.schedules import Schedule, ScheduleKind
from nbdebug.training import schedules
from nbdebug.training.optimizer_state import deep_copy
from nbdebug.training.scheduler_moves import move_scheduler
from nbdebug.training.script_refit_optimizer import constant_lines, given_lines, schedule_lines

if TYPE_CHECKING:
    from nbdebug.training.session import Session

RATES = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")


@dataclass(frozen=True)
class Aside:
    """A schedule that was put aside, with copies of its state and of the rates and factors of the groups."""

    scheduler: Any
    interval: str
    states: dict[str, Any]
    kind: type[Optimizer]
    rates: tuple[dict[str, Any], ...]
    factors: tuple[float, ...]


@dataclass(frozen=True)
class Present:
    """The schedule in use: one that was set, ``done`` of its positions being over; or one that was given; or none."""

    schedule: Schedule | None = None
    done: int = 0
    given: bool = False


class Schedules:
    """Sets the schedule of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._set: WeakKeyDictionary[Any, Schedule] = WeakKeyDictionary()
        self.aside: Aside | None = None

    @property
    def present(self) -> Present:
        """What is in use."""
        for scheduler in self._session.trainer.schedulers.values():
            known = self._set.get(scheduler)
            return Present(given=True) if known is None else Present(known, int(scheduler.last_epoch))
        return Present()

    def is_set(self, scheduler: Any) -> bool:
        """Whether it was made here."""
        return scheduler in self._set

    def set(self, command: SetSchedule) -> list[str]:
        """Carry it out; the rate that is asked for becomes the highest. The same as lines of Python.

        Raises:
            ConfigurationError, CommandError: it can't be done, and nothing is changed.
        """
        session, trainer = self._session, self._session.trainer
        if len(trainer.optimizers) > 1:
            raise CommandError("a schedule can't be set for several optimizers at once")
        [(name, optimizer)] = trainer.optimizers.items()
        asked = [group.asked for group in session.knobs.groups if group.optimizer is optimizer]
        if len(asked) != len(optimizer.param_groups):
            raise CommandError("a schedule can't be set: a parameter group has no rate")
        if command.given:
            return self._put_back(name, optimizer)
        aside = self._put_aside(optimizer) if self.present.given else self.aside
        schedule = command.schedule
        if schedule is None or (schedule.kind is ScheduleKind.CONSTANT and not schedule.warmup_steps):
            trainer.scheduler = None
            tensors = [isinstance(group["lr"], torch.Tensor) for group in optimizer.param_groups]
            for group, rate in zip(optimizer.param_groups, asked, strict=True):
                schedules.write_rate(group, rate)
                group.pop("initial_lr", None)
            lines = constant_lines(name, asked, tensors)
        else:
            made = schedules.build(schedule, optimizer, command.done, base_rates=asked)
            self._set[made] = schedule
            trainer.scheduler = {name: made} if isinstance(trainer.scheduler, Mapping) else made
            trainer.scheduler_interval = str(schedule.interval)
            lines = schedule_lines(name, schedule, asked, command.done)
        self.aside = aside
        for rated in session.knobs.groups:
            rated.factor = 1.0
        return lines

    def _put_aside(self, optimizer: Optimizer) -> Aside:
        trainer = self._session.trainer
        return Aside(
            trainer.scheduler,
            trainer.scheduler_interval,
            {name: copy.deepcopy(each.state_dict()) for name, each in trainer.schedulers.items()},
            type(optimizer),
            tuple({key: deep_copy(group[key]) for key in RATES if key in group} for group in optimizer.param_groups),
            tuple(group.factor for group in self._session.knobs.groups),
        )

    def _put_back(self, name: str, optimizer: Optimizer) -> list[str]:
        trainer, aside = self._session.trainer, self.aside
        if aside is None:
            raise CommandError("there is no schedule that was given and is not in use")
        if aside.kind is not type(optimizer) or len(aside.rates) != len(optimizer.param_groups):
            raise CommandError(
                f"the schedule that was given was for {aside.kind.__name__} with {len(aside.rates)} parameter groups, "
                f"not for {type(optimizer).__name__} with {len(optimizer.param_groups)}"
            )
        trainer.scheduler, trainer.scheduler_interval = aside.scheduler, aside.interval
        moved = []
        for key, scheduler in trainer.schedulers.items():
            scheduler.load_state_dict(copy.deepcopy(aside.states[key]))
            if getattr(scheduler, "optimizer", None) is not optimizer:
                move_scheduler(scheduler, optimizer, [1.0] * len(aside.rates))
                moved.append(key)
        for group, rates in zip(optimizer.param_groups, aside.rates, strict=True):
            schedules.write_rate(group, float(rates["lr"]))
            for key in RATES[1:]:
                group.pop(key, None)
            group.update(deep_copy({key: value for key, value in rates.items() if key != "lr"}))
        for rated, factor in zip(self._session.knobs.groups, aside.factors, strict=False):
            rated.factor = factor
        return given_lines(name, aside.rates, moved, aside.interval)
