"""Other parts in a running session: another optimizer, another schedule, other activations, frozen layers.

The parts that are taken out are kept, as the objects that they are, with each snapshot of that time: going back puts
them in again before any value is written. Training thread, at a safe point.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from nbdebug.records.commands import EditNorms, Freeze, Refit, SetAverage, SetSchedule, SwapActivations, SwapOptimizer
from nbdebug.records.errors import CommandError
from nbdebug.records.schedules import ScheduleKind
from nbdebug.training import schedules, surgery
from nbdebug.training.averaging import Average, Ema, Swa
from nbdebug.training.modules import named_modules, own_parameters
from nbdebug.training.optimizer_state import forget
from nbdebug.training.optimizers import converted
from nbdebug.training.scheduler_moves import move_scheduler
from nbdebug.training.surgery import Activation, Originals, Plan, Structure

if TYPE_CHECKING:
    from nbdebug.training.session import Session


TAKEN_CARE_OF = "no optimizer has"  # the parameters that a plan adds are put into one here
AVERAGE = "nbdebug: average of the weights"


@dataclass(frozen=True)
class Equipment:
    """The parts that train at a moment. ``held`` are the optimizers' parameters by group."""

    optimizer: Any
    scheduler: Any
    interval: str
    structure: Structure
    held: tuple[tuple[Optimizer, tuple[tuple[torch.Tensor, ...], ...]], ...]
    attached: tuple[tuple[Any, Optimizer], ...]
    state: dict[str, Any]


class Refitter:
    """Exchanges parts of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._originals = Originals()
        self._looked_at: tuple[int, ...] = ()
        self._found: tuple[tuple[str, str], ...] = ()

    def equipment(self) -> Equipment:
        """What is in use now."""
        trainer = self._session.trainer
        held = tuple(
            (each, tuple(tuple(group["params"]) for group in each.param_groups)) for each in trainer.optimizers.values()
        )
        attached = tuple((each, each.optimizer) for each in _all_of(trainer.schedulers.values()))
        structure = surgery.capture(self._originals)
        interval = trainer.scheduler_interval
        return Equipment(trainer.optimizer, trainer.scheduler, interval, structure, held, attached, trainer.state)

    def put_back(self, equipment: Equipment | None) -> None:
        """Put the parts of another time in, if they are others."""
        if equipment is None:  # from a file: whatever is in use takes it in, or it is refused
            return
        trainer = self._session.trainer
        changed = trainer.optimizer is not equipment.optimizer or trainer.scheduler is not equipment.scheduler
        changed |= trainer.state is not equipment.state
        trainer.optimizer, trainer.scheduler = equipment.optimizer, equipment.scheduler
        trainer.state = equipment.state
        trainer.scheduler_interval = equipment.interval
        for scheduler, optimizer in equipment.attached:
            scheduler.optimizer = optimizer
        changed |= surgery.restore(equipment.structure)
        for optimizer, groups in equipment.held:
            changed |= _hold(optimizer, groups)
        if changed:
            self._take_note()

    def refit(self, command: Refit) -> str:
        """Exchange a part; what was done, in words.

        Raises:
            ConfigurationError, CommandError: it can't be done, and nothing is changed.
        """
        match command:
            case SwapOptimizer():
                text = self._swap_optimizer(command)
            case SetSchedule():
                text = self._set_schedule(command)
            case SwapActivations():
                kind = Activation(command.kind)
                text = self._operate(surgery.plan_swap(self._session.model, kind, _names(command.layers)), str(command))
            case Freeze():
                text = self._operate(self._plan_of(command), str(command))
            case SetAverage():
                text = self._set_average(command)
            case EditNorms():
                text = self._operate(self._plan_of_norms(command), str(command))
        self._take_note()
        return text

    def told(self) -> dict[str, Any]:
        """For the controls: layers with activations, each with its kind; what they can become; what is frozen."""
        model = self._session.model
        parameters = {name: own_parameters(module) for name, module in named_modules(model).items()}
        return {
            "activations": self._activations(),
            "activation_kinds": tuple(map(str, Activation)),
            "frozen": tuple(
                n for n, own in parameters.items() if own and not any(p.requires_grad for p in own.values())
            ),
        }

    def _activations(self) -> tuple[tuple[str, str], ...]:
        """Found once for as long as the modules are the same: reading their code takes a while."""
        key = tuple(map(id, named_modules(self._session.model).values()))
        if key != self._looked_at:
            layers = surgery.activation_layers(self._session.model)
            self._looked_at, self._found = key, tuple((name, type(each).__name__) for name, each in layers.items())
        return self._found

    # -- inside -------------------------------------------------------------------------------------------------

    def _swap_optimizer(self, command: SwapOptimizer) -> str:
        trainer = self._session.trainer
        made = {
            name: converted(optimizer, command.kind, command.lr, **dict(command.options))
            for name, optimizer in trainer.optimizers.items()
            if not command.name or name == command.name
        }
        if not made:
            names = ", ".join(map(repr, trainer.optimizers))
            raise CommandError(f"no optimizer {command.name!r}: there are {names}")
        new = {**trainer.optimizers, **{name: each.optimizer for name, each in made.items()}}
        for scheduler in trainer.schedulers.values():
            name = next((n for n, o in trainer.optimizers.items() if o is getattr(scheduler, "optimizer", None)), None)
            if name in made:
                move_scheduler(scheduler, made[name].optimizer, made[name].ratios)
        trainer.optimizer = new if isinstance(trainer.optimizer, Mapping) else new[""]
        said = " ".join(dict.fromkeys(line for each in made.values() for line in each.said))
        return f"{command}. {said}".strip()

    def _set_schedule(self, command: SetSchedule) -> str:
        """The rate that is asked for becomes the new schedule's highest."""
        session, trainer = self._session, self._session.trainer
        optimizers = trainer.optimizers
        if len(optimizers) > 1:
            raise CommandError("a schedule can't be set for several optimizers at once")
        [(name, optimizer)] = optimizers.items()
        asked = [group.asked for group in session.knobs.groups if group.optimizer is optimizer]
        if len(asked) != len(optimizer.param_groups):
            raise CommandError("a schedule can't be set: a parameter group has no rate")
        schedule = command.schedule
        if schedule is None or (schedule.kind is ScheduleKind.CONSTANT and not schedule.warmup_steps):
            trainer.scheduler = None
            for group, rate in zip(optimizer.param_groups, asked, strict=True):
                _write_rate(group, rate)
            return str(command)
        made = schedules.build(schedule, optimizer, base_rates=asked)
        trainer.scheduler = {name: made} if isinstance(trainer.scheduler, Mapping) else made
        trainer.scheduler_interval = str(schedule.interval)
        return str(command)

    def _plan_of(self, command: Freeze) -> Plan:
        model = self._session.model
        if command.frozen:
            return surgery.plan_freeze(model, _names(command.layers), hold_statistics=command.hold_statistics)
        return surgery.plan_unfreeze(model, _names(command.layers), originals=self._originals)

    def _set_average(self, command: SetAverage) -> str:
        """It is kept with the user's own state, so that snapshots have it."""
        state = dict(self._session.trainer.state)
        state.pop(AVERAGE, None)
        if command.kind:
            rule = Ema(command.decay) if command.kind == "ema" else Swa(command.start, command.every)
            state[AVERAGE] = Average(rule, buffers=True)
        self._session.trainer.state = state
        return str(command)

    @property
    def average(self) -> Average | None:
        """The average that is taken, if one is."""
        found = self._session.trainer.state.get(AVERAGE)
        return found if isinstance(found, Average) else None

    def _plan_of_norms(self, command: EditNorms) -> Plan:
        model, layers = self._session.model, _names(command.layers)
        if command.insert:
            return surgery.plan_insert_norms(model, layers)
        return surgery.plan_remove_norms(model, layers, fold=command.fold)

    def _operate(self, plan: Plan, text: str) -> str:
        """Carry a plan out; parameters that are new go into the first optimizer's last group."""
        if not plan.changes:
            reasons = "; ".join(f"{name}: {why}" for name, why in plan.refused.items()) or "there is no such layer"
            raise CommandError(f"nothing was changed ({reasons})")
        surgery.apply(plan, self._originals)
        optimizers = list(self._session.trainer.optimizers.values())
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        fresh = [parameter for parameter in plan.parameters_added.values() if id(parameter) not in held]
        optimizers[0].param_groups[-1]["params"].extend(fresh)
        gone = {id(parameter) for parameter in plan.parameters_removed.values()}
        for optimizer in optimizers:
            forget(optimizer, [*plan.parameters_rewritten.values(), *plan.parameters_removed.values()])
            for group in optimizer.param_groups if gone else ():
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
        left = "".join(f"; left {name} ({why})" for name, why in plan.refused.items())
        told = dict.fromkeys(note for change in plan.changes for note in change.notes if TAKEN_CARE_OF not in note)
        notes = "; ".join(told)
        count = len(plan.changes)
        return f"{text}: {count} layer{'s' if count > 1 else ''}{left}. {notes}".rstrip(". ") + "."

    def _take_note(self) -> None:
        """Whoever holds on to parts gets the new ones."""
        session = self._session
        session.stepper.hooks.attach_to(session.trainer.optimizers)
        session.knobs.refresh()
        session.stepper.begin_anew(self.average)
        session.lookout.accept()


def _names(layers: tuple[str, ...]) -> list[str] | None:
    return list(layers) or None


def _hold(optimizer: Optimizer, groups: tuple[tuple[torch.Tensor, ...], ...]) -> bool:
    """Give the groups the parameters that they held; whether they held others."""
    changed = False
    for group, parameters in zip(optimizer.param_groups, groups, strict=False):
        if [id(p) for p in group["params"]] != [id(p) for p in parameters]:
            group["params"] = list(parameters)
            changed = True
    return changed


def _all_of(schedulers: Iterable[Any]) -> list[Any]:
    """Schedulers, and those inside them, that have an optimizer."""
    found = []
    for scheduler in schedulers:
        found += _all_of(getattr(scheduler, "_schedulers", ()))
        if hasattr(scheduler, "optimizer"):
            found.append(scheduler)
    return found


def _write_rate(group: dict[str, Any], rate: float) -> None:
    if isinstance(group["lr"], torch.Tensor):
        group["lr"].fill_(rate)
    else:
        group["lr"] = rate
    group.pop("initial_lr", None)
