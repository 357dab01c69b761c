"""What a change found in use, kept with it so that it can be written into a script later, wherever the model is then.

Holds no weights and no optimizer: of optimizers only the kind and the options of their groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.records.commands import (
    EditNorms,
    Freeze,
    Reinitialize,
    SetAverage,
    SetKnobs,
    SetSchedule,
    SplitDecay,
    SwapActivations,
    SwapOptimizer,
)
from nbdebug.records.runs import Change
from nbdebug.training import initialization
from nbdebug.training.initialization import Operation
from nbdebug.training.knobs import Knobs
from nbdebug.training.modules import Model
from nbdebug.training.rates import RateGroup


@dataclass(frozen=True)
class Parts:
    """Optimizers by name: kinds and options, without parameters."""

    optimizers: dict[str, Optimizer]


@dataclass(frozen=True)
class Scene:
    """The knobs as they were at a change: parameter groups with their rates, and the layers that drop."""

    groups: tuple[RateGroup, ...]
    dropout_layers: Mapping[str, nn.Module]
    trainer: Parts

    @classmethod
    def of(cls, knobs: Knobs) -> Scene:
        """Of now."""
        shells = {name: shell(each) for name, each in knobs.trainer.optimizers.items()}
        known = {id(each): shells[name] for name, each in knobs.trainer.optimizers.items()}
        groups = tuple(replace(group, optimizer=known[id(group.optimizer)]) for group in knobs.groups)
        return cls(groups, dict(knobs.dropout_layers), Parts(shells))


@dataclass(frozen=True)
class Deed:
    """What a change did: the scene right after it, how it drew weights, or the lines of Python that do it again."""

    scene: Scene
    operations: tuple[Operation, ...] = ()
    redrawn: tuple[tuple[str, str], ...] = ()
    lines: tuple[str, ...] = field(default=())


def shell(optimizer: Optimizer, options: list[dict[str, Any]] | None = None) -> Optimizer:
    """An empty optimizer of the same kind, with the options of its groups, or with these."""
    made: Optimizer = type(optimizer).__new__(type(optimizer))
    held = optimizer.param_groups if options is None else options
    plain = [{k: _own(v) for k, v in group.items() if k not in ("params", "param_names")} for group in held]
    vars(made).update(param_groups=plain, defaults=dict(optimizer.defaults), state={})
    return made


def deed(change: Change, model: Model, knobs: Knobs, lines: tuple[str, ...]) -> Deed | None:
    """What is kept of a change that was just made; ``lines`` are those of a part that was exchanged."""
    match change:
        case SetKnobs():
            return Deed(Scene.of(knobs))
        case Reinitialize():
            plan = initialization.plan(model, change.scheme, change.layers)
            return Deed(Scene.of(knobs), plan.operations, plan.names)
        case SwapOptimizer() | SetSchedule() | SwapActivations() | Freeze() | EditNorms() | SetAverage() | SplitDecay():
            return Deed(Scene.of(knobs), lines=lines)
        case _:
            return None


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value
