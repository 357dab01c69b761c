"""Snapshots: all that training depends on, copied at a safe point, and put back in place. Training thread only."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nbdebug.training import module_state, optimizer_state
from nbdebug.training.data import DataCursor, DataPosition
from nbdebug.training.knobs import Knobs, KnobSettings
from nbdebug.training.module_state import ModuleState
from nbdebug.training.modules import Model, named_parameters, roots
from nbdebug.training.rng import RandomState
from nbdebug.training.trainer import Trainer

RANDOM_STATE_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after ``step`` steps of ``run``, ``epoch`` epochs being finished. Holds copies only."""

    run: str
    step: int
    epoch: int
    modules: ModuleState
    optimizers: dict[str, Any]
    schedulers: dict[str, Any]
    state: dict[str, Any]
    random: RandomState
    data: DataPosition
    knobs: KnobSettings
    epoch_losses: tuple[tuple[float, int], ...]
    size_bytes: int


def capture(
    model: Model,
    trainer: Trainer,
    knobs: Knobs,
    cursor: DataCursor,
    *,
    run: str,
    step: int,
    epoch: int,
    epoch_losses: tuple[tuple[float, int], ...] = (),
) -> Snapshot:
    """Copy everything. Within the session's turn, so that the global random state is the run's own."""
    modules = module_state.capture(_everything(model, trainer), _others(model, trainer))
    optimizers = {name: optimizer_state.capture(o) for name, o in trainer.optimizers.items()}
    state = {name: copy.deepcopy(entry.state_dict()) for name, entry in trainer.state.items()}
    tensors = [*modules.tensors(), *_tensors_in([optimizers, state])]
    return Snapshot(
        run=run,
        step=step,
        epoch=epoch,
        modules=modules,
        optimizers=optimizers,
        schedulers={name: copy.deepcopy(s.state_dict()) for name, s in trainer.schedulers.items()},
        state=state,
        random=RandomState.capture(),
        data=cursor.position(),
        knobs=knobs.settings(),
        epoch_losses=epoch_losses,
        size_bytes=sum(_bytes(tensor) for tensor in tensors) + RANDOM_STATE_BYTES,
    )


def restore(snapshot: Snapshot, model: Model, trainer: Trainer, knobs: Knobs, cursor: DataCursor) -> None:
    """Put everything back, the global random state included. Within the session's turn.

    Raises:
        CommandError: before anything is written, where model or optimizer have changed too much since.
    """
    module_state.refuse_if_changed(snapshot.modules, _everything(model, trainer))
    for name, optimizer in trainer.optimizers.items():
        optimizer_state.refuse_if_changed(optimizer, snapshot.optimizers[name])
    for name, optimizer in trainer.optimizers.items():
        optimizer_state.restore(optimizer, snapshot.optimizers[name])
    module_state.restore(snapshot.modules, _everything(model, trainer), _others(model, trainer))
    for name, entry in trainer.state.items():
        entry.load_state_dict(copy.deepcopy(snapshot.state[name]))
    for name, scheduler in trainer.schedulers.items():
        _restore_scheduler(scheduler, snapshot.schedulers[name], trainer)
    knobs.refresh()
    knobs.restore(snapshot.knobs)
    cursor.restore(snapshot.data)
    snapshot.random.restore()


def _everything(model: Model, trainer: Trainer) -> Mapping[str, nn.Module]:
    """All modules that training can change: the model's, and the loss where it is one."""
    loss = {"loss_fn": trainer.loss_fn} if isinstance(trainer.loss_fn, nn.Module) else {}
    return {**roots(model), **loss}


def _others(model: Model, trainer: Trainer) -> list[torch.Tensor]:
    """What the optimizers hold besides the parameters of modules."""
    known = {id(p) for p in named_parameters(_everything(model, trainer)).values()}
    held = [p for optimizer in trainer.optimizers.values() for p in optimizer_state.parameters_of(optimizer)]
    return [parameter for parameter in held if id(parameter) not in known]


def _restore_scheduler(scheduler: Any, kept: Any, trainer: Trainer) -> None:
    """Some schedulers write learning rates when they load; those of the snapshot stay."""
    groups = [group for optimizer in trainer.optimizers.values() for group in optimizer.param_groups]
    rates = [optimizer_state.deep_copy(group["lr"]) for group in groups]
    scheduler.load_state_dict(copy.deepcopy(kept))
    for group, rate in zip(groups, rates, strict=True):
        if isinstance(rate, torch.Tensor):
            group["lr"].copy_(rate)
        else:
            group["lr"] = rate


def _bytes(tensor: torch.Tensor) -> int:
    stored = tensor._values() if tensor.is_sparse else tensor
    return stored.numel() * stored.element_size()


def _tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]
