"""What a run began with, as far as it can be exchanged later: optimizers, schedulers, ``state``. Pure.

A script is given these by the person's own file; all that came later it makes by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from nbdebug.records.commands import Refit, SetAverage, SetKnobs, SetSchedule, SwapOptimizer
from nbdebug.records.runs import Change, Intervention
from nbdebug.records.schedules import ScheduleKind
from nbdebug.training.knobs import Knobs
from nbdebug.training.rates import RateGroup
from nbdebug.training.script_scene import Deed, Parts, Scene, shell
from nbdebug.training.snapshots import Snapshot
from nbdebug.training.steps import needs_closure
from nbdebug.training.trainer import Trainer


@dataclass(frozen=True)
class Given:
    """The parts in use at the start; one of each, or several by name."""

    optimizer: Any
    scheduler: Any
    interval: str
    state: Mapping[str, Any]
    unlike: tuple[str, ...] = ()

    @classmethod
    def of(cls, trainer: Trainer, start: Snapshot) -> Given:
        """What the trainer was given, where something else is in use by now."""
        kept = start.equipment
        if kept is None:
            return cls(trainer.optimizer, trainer.scheduler, trainer.scheduler_interval, trainer.state)
        unlike = tuple(kept.structure.lines) + tuple(kept.made)
        return cls(kept.optimizer, kept.scheduler, kept.interval, kept.state, unlike)

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """By name; a single one has the empty name."""
        return dict(self.optimizer) if isinstance(self.optimizer, Mapping) else {"": self.optimizer}

    @property
    def schedulers(self) -> dict[str, Any]:
        """The same of the schedulers."""
        if self.scheduler is None:
            return {}
        return dict(self.scheduler) if isinstance(self.scheduler, Mapping) else {"": self.scheduler}

    def scene(self, knobs: Knobs, start: Snapshot) -> Scene:
        """The knobs at the start: the options are the snapshot's, since those in the optimizers may be others now."""
        shells = {name: shell(each, _options(start, name)) for name, each in self.optimizers.items()}
        groups = [replace(each) for each in (knobs.groups if start.equipment is None else start.equipment.groups)]
        names = [name for name, each in shells.items() for group in each.param_groups if "lr" in group]
        for group, name in zip(groups, names, strict=True):
            group.optimizer = shells[name]
        for group, factor in zip(groups, start.knobs.factors, strict=False):
            group.factor = factor
        for group, first in zip(groups, start.knobs.first_rates, strict=False):
            group.first_lr = first
        return Scene(tuple(groups), dict(knobs.dropout_layers), Parts(shells))


def _options(start: Snapshot, name: str) -> list[dict[str, Any]] | None:
    kept = start.optimizers[name]
    return None if isinstance(kept, dict) else list(kept[0])


@dataclass(frozen=True)
class Exchanges:
    """Which parts are exchanged on the way, and what each change found in use."""

    given: Given
    first: Scene
    deeds: Mapping[int, Deed]
    interventions: Sequence[Intervention]

    def scene(self, index: int) -> Scene:
        """The knobs at a change."""
        return self.deeds[index].scene if index in self.deeds else self.first

    @property
    def scenes(self) -> list[Scene]:
        """All that there are, the start's first."""
        return [self.first, *(self.deeds[index].scene for index in sorted(self.deeds))]

    @property
    def changes(self) -> list[Change]:
        """Those that exchange something."""
        return [made.change for made in self.interventions if isinstance(made.change, Refit)]

    @property
    def groups(self) -> list[RateGroup]:
        """The parameter groups of all times."""
        return [group for scene in self.scenes for group in scene.groups]

    @property
    def optimizers(self) -> list[Optimizer]:
        """The same of the optimizers, by their kinds."""
        found = [each for scene in self.scenes for each in scene.trainer.optimizers.values()]
        return [*self.given.optimizers.values(), *found]

    def reasons(self) -> list[str]:
        """Why a script can't do them."""
        found = [
            f"{made.change} after step {made.step:,}: what it did was not kept"
            for index, made in enumerate(self.interventions)
            if isinstance(made.change, Refit) and index not in self.deeds
        ]
        found += [
            f"{', '.join(changes.own)} after step {made.step:,}: a knob of your own, which your code reads and a "
            "script can't set; export a run from before it, or write the value into the code"
            for made in self.interventions
            if isinstance(made.change, SetKnobs) and (changes := made.change.changes).own
        ]
        if self.given.unlike:
            found.append(
                f"it began with other parts than were given to the Debugger ({'; '.join(self.given.unlike)}); export "
                "the run that these changes were made in, or begin a Debugger with these parts"
            )
        return found

    def features(self) -> set[str]:
        """Of the script."""
        changes = self.changes
        has = {kind: any(isinstance(change, kind) for change in changes) for kind in Refit.__args__}
        set_schedules = [change.schedule for change in changes if isinstance(change, SetSchedule)]
        given = self.given.schedulers
        plateau = any(isinstance(each, ReduceLROnPlateau) for each in given.values())
        plateau |= any(each is not None and each.kind is ScheduleKind.PLATEAU for each in set_schedules)
        several = isinstance(self.given.scheduler, Mapping)
        found = {
            "swaps": has[SwapOptimizer],
            "schedules": has[SetSchedule],
            "averages": has[SetAverage],
            "given": any(isinstance(change, SetSchedule) and change.given for change in changes),
            "schedule": bool(given),
            "one_schedule": not several,
            "one_optimizer": not isinstance(self.given.optimizer, Mapping),
            f"{self.given.interval}_schedule": bool(given) and not has[SetSchedule],
            "plateau": plateau,
            "closure": any(map(needs_closure, self.optimizers)),
            "lbfgs": any(isinstance(each, torch.optim.LBFGS) for each in self.optimizers),
        }
        return {name for name, present in found.items() if present}

    def rates(self, scene: Scene) -> list[dict[str, Any]]:
        """Of each parameter group, how its rate relates to its schedule, where that is not the default."""
        found = []
        for group in scene.groups:
            first = None if not group.scheduled or "initial_lr" in group.options else group.first_lr
            options = {"scheduled": group.scheduled, "peak": group.has_peak, "first": first}
            options["factor"] = group.factor if group.factor != 1.0 else None
            found.append({name: value for name, value in options.items() if value})
        return found
