"""Other parts in a running session: another optimizer, another schedule, other activations, frozen layers.

The parts that are taken out are kept, as the objects that they are, with each snapshot of that time: going back puts
them in again before any value is written. Training thread, at a safe point.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import Optimizer

from nbdebug.records.commands import (
    EditNorms,
    Freeze,
    Refit,
    SetAverage,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.errors import CommandError, collect
from nbdebug.training import decay_refit, surgery
from nbdebug.training.averaging import Average, Ema, Swa
from nbdebug.training.modules import named_modules, own_parameters
from nbdebug.training.optimizer_state import forget
from nbdebug.training.optimizers import converted
from nbdebug.training.rates import RateGroup
from nbdebug.training.refit_schedule import Aside, Schedules
from nbdebug.training.scheduler_moves import move_scheduler
from nbdebug.training.script_refit import average_lines, surgery_lines, whole_layers
from nbdebug.training.script_refit_optimizer import swap_lines
from nbdebug.training.surgery import Activation, Originals, Plan, Structure

if TYPE_CHECKING:
    from nbdebug.training.session import Session


TAKEN_CARE_OF = "no optimizer has"  # the parameters that a plan adds are put into one here
AVERAGE = "nbdebug: average of the weights"


@dataclass(frozen=True)
class Equipment:
    """The parts that train at a moment. ``held`` are the optimizers' parameters by group.

    ``groups`` are their learning rates as the knobs have them, ``made`` says which parts were made here,
    ``lambdas`` are the schedules' functions by group, which are in no state of theirs.
    """

    optimizer: Any
    scheduler: Any
    interval: str
    structure: Structure
    held: tuple[tuple[Optimizer, tuple[tuple[torch.Tensor, ...], ...]], ...]
    attached: tuple[tuple[Any, Optimizer], ...]
    state: dict[str, Any]
    groups: tuple[RateGroup, ...] = ()
    made: tuple[str, ...] = ()
    lambdas: tuple[tuple[Any, tuple[Any, ...]], ...] = ()
    aside: Aside | None = None


class Refitter:
    """Exchanges parts of one session.

    ``lines`` are the latest exchange as Python, for a script; ``plan`` is the latest one of layers.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        self._originals = Originals()
        self.lines: tuple[str, ...] = ()
        self.plan: Plan | None = None
        self.schedules = Schedules(session)
        self._made: weakref.WeakSet[Any] = weakref.WeakSet()
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
        groups = tuple(replace(group) for group in self._session.knobs.groups)
        return Equipment(
            trainer.optimizer,
            trainer.scheduler,
            interval,
            structure,
            held,
            attached,
            trainer.state,
            groups,
            tuple(self._foreign()),
            tuple((each, tuple(each.lr_lambdas)) for each, _ in attached if hasattr(each, "lr_lambdas")),
            self.schedules.aside,
        )

    def _foreign(self) -> Iterator[str]:
        """Parts in use that the user did not give, in words."""
        trainer = self._session.trainer
        for each in (*trainer.optimizers.values(), *trainer.schedulers.values()):
            if each in self._made or self.schedules.is_set(each):
                yield f"another {'optimizer' if isinstance(each, Optimizer) else 'schedule'}, {type(each).__name__}"
        if self.average is not None:
            yield "an average of the weights"

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
        self.schedules.aside = equipment.aside
        for scheduler, optimizer in equipment.attached:
            scheduler.optimizer = optimizer
        changed |= surgery.restore(equipment.structure)
        for optimizer, groups in equipment.held:
            changed |= _hold(optimizer, groups)
        for scheduler, factors in equipment.lambdas:
            scheduler.lr_lambdas = list(factors)
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
                self.lines, text = tuple(self.schedules.set(command)), str(command)
            case SwapActivations():
                kind = Activation(command.kind)
                mistakes = surgery.option_mistakes(kind, command.options)
                if mistakes:
                    raise collect(mistakes)
                plan = surgery.plan_swap(self._session.model, kind, _names(command.layers), command.options)
                text = self._operate(plan, str(command))
            case Freeze():
                plan = self._plan_of(command)
                text = self._operate(plan, str(command))
                self.lines = tuple(whole_layers(self.lines, self._session.model, command.layers, plan))
            case SetAverage():
                text = self._set_average(command)
            case EditNorms():
                text = self._operate(self._plan_of_norms(command), str(command))
            case SplitDecay():
                text = self._split_decay(command)
        factors = {place: group.factor for place, group in enumerate(self._session.knobs.groups)}
        self._take_note()
        self._keep_factors(command, factors)
        return text

    def _keep_factors(self, command: Refit, factors: Mapping[int, float]) -> None:
        """Those on a schedule go on with another optimizer; where a schedule was exchanged, it says."""
        for place, group in enumerate(self._session.knobs.groups):
            if isinstance(command, SetSchedule) or (isinstance(command, SwapOptimizer) and _keeps_factors(command)):
                group.factor = factors.get(place, 1.0) if group.scheduled else 1.0

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
        moved: dict[str, list[str]] = {name: [] for name in made}
        for key, scheduler in trainer.schedulers.items():
            name = next((n for n, o in trainer.optimizers.items() if o is getattr(scheduler, "optimizer", None)), None)
            if name in made:
                move_scheduler(scheduler, made[name].optimizer, made[name].ratios)
                moved[name].append(key)
        written = (swap_lines(name, trainer.optimizers[name], each, moved[name]) for name, each in made.items())
        self.lines = tuple(line for lines in written for line in lines)
        self._made.update(each.optimizer for each in made.values())
        trainer.optimizer = new if isinstance(trainer.optimizer, Mapping) else new[""]
        said = " ".join(dict.fromkeys(line for each in made.values() for line in each.said))
        return f"{command}. {said}".strip()

    def _plan_of(self, command: Freeze) -> Plan:
        model = self._session.model
        if command.frozen:
            hold, only = command.hold_statistics, command.only
            return surgery.plan_freeze(model, _names(command.layers), hold_statistics=hold, only=only)
        return surgery.plan_unfreeze(model, _names(command.layers), originals=self._originals, only=command.only)

    def _set_average(self, command: SetAverage) -> str:
        """It is kept with the user's own state, so that snapshots have it."""
        state = dict(self._session.trainer.state)
        state.pop(AVERAGE, None)
        if command.kind:
            rule = Ema(command.decay) if command.kind == "ema" else Swa(command.start, command.every)
            state[AVERAGE] = Average(rule, buffers=True)
        self._session.trainer.state = state
        self.lines = tuple(average_lines(self.average.rule if self.average is not None else None))
        return str(command)

    def _split_decay(self, command: SplitDecay) -> str:
        session = self._session
        parts = (session.model, session.trainer)
        mistakes = decay_refit.decay_mistakes(*parts, command.name)
        if mistakes:
            raise collect(mistakes)
        text, lines = decay_refit.split(*parts, session.knobs, command.name)
        self.lines = tuple(lines)
        return f"{command}: {text}"

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
        self.plan = plan
        first, *_ = self._session.trainer.optimizers
        optimizers = list(self._session.trainer.optimizers.values())
        held = {id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]}
        fresh = [parameter for parameter in plan.parameters_added.values() if id(parameter) not in held]
        optimizers[0].param_groups[-1]["params"].extend(fresh)
        gone = {id(parameter) for parameter in plan.parameters_removed.values()}
        for optimizer in optimizers:
            forget(optimizer, [*plan.parameters_rewritten.values(), *plan.parameters_removed.values()])
            for group in optimizer.param_groups if gone else ():
                group["params"] = [parameter for parameter in group["params"] if id(parameter) not in gone]
        names = [name for name, parameter in plan.parameters_added.items() if id(parameter) not in held]
        self.lines = tuple(surgery_lines(plan, names, first, gone=bool(gone & held)))
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
    """Give the groups the parameters that they held; whether they held others, or were others.

    The options of groups that are made again come back with the optimizer's state.
    """
    present = optimizer.param_groups
    changed = len(present) != len(groups)
    present.extend({**present[0], "params": []} for _ in groups[len(present) :])
    del present[len(groups) :]
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


def _keeps_factors(command: SwapOptimizer) -> bool:
    """One rate for all is the rate in force; without it, or with the groups' own, a schedule's factors stay."""
    return command.lr is None or isinstance(command.lr, tuple)
