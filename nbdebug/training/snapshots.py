"""Snapshots: all that training depends on, copied at a safe point, and put back in place.

Parameters, buffers and gradients are written into the tensors that the model already has, so that optimizers and the
user's own references stay good. Training thread only.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]
from torch.optim import Optimizer

from nbdebug.training.data import DataCursor, DataPosition
from nbdebug.training.knobs import Knobs, KnobSettings
from nbdebug.training.modules import Model, named_buffers, named_modules, named_parameters
from nbdebug.training.rng import RandomState
from nbdebug.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state after ``step`` steps of ``run``, ``epoch`` epochs being finished. Holds copies only."""

    run: str
    step: int
    epoch: int
    tensors: dict[str, torch.Tensor]
    gradients: dict[str, torch.Tensor]
    learning: dict[str, bool]
    modes: dict[str, bool]
    extra: dict[str, Any]
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
    parameters = named_parameters(model)
    tensors = _copied({**parameters, **named_buffers(model)})
    gradients = _copied({name: p.grad for name, p in parameters.items() if p.grad is not None})
    optimizers = {name: _optimizer_state(o) for name, o in trainer.optimizers.items()}
    state = {name: copy.deepcopy(entry.state_dict()) for name, entry in trainer.state.items()}
    return Snapshot(
        run=run,
        step=step,
        epoch=epoch,
        tensors=tensors,
        gradients=gradients,
        learning={name: p.requires_grad for name, p in parameters.items()},
        modes={name: m.training for name, m in named_modules(model).items()},
        extra={name: copy.deepcopy(m.get_extra_state()) for name, m in _with_extra_state(model).items()},
        optimizers=optimizers,
        schedulers={name: _scheduler_state(s) for name, s in trainer.schedulers.items()},
        state=state,
        random=RandomState.capture(),
        data=cursor.position(),
        knobs=knobs.settings(),
        epoch_losses=epoch_losses,
        size_bytes=sum(_bytes(tensor) for tensor in _tensors_in([tensors, gradients, optimizers, state])),
    )


def restore(snapshot: Snapshot, model: Model, trainer: Trainer, knobs: Knobs, cursor: DataCursor) -> None:
    """Put everything back, the global random state included. Within the session's turn."""
    parameters = named_parameters(model)
    with torch.no_grad():
        for name, tensor in {**parameters, **named_buffers(model)}.items():
            _write(tensor, snapshot.tensors.get(name))
    for name, parameter in parameters.items():
        parameter.requires_grad_(snapshot.learning.get(name, parameter.requires_grad))
        kept = snapshot.gradients.get(name)
        parameter.grad = None if kept is None else kept.clone()
    modules = named_modules(model)
    for name, flag in snapshot.modes.items():
        if name in modules:
            modules[name].training = flag
    for name, module in _with_extra_state(model).items():
        module.set_extra_state(copy.deepcopy(snapshot.extra[name]))
    for name, entry in trainer.state.items():
        entry.load_state_dict(copy.deepcopy(snapshot.state[name]))
    for name, scheduler in trainer.schedulers.items():
        scheduler.load_state_dict(copy.deepcopy(snapshot.schedulers[name]))
    for name, optimizer in trainer.optimizers.items():
        _restore_optimizer(optimizer, snapshot.optimizers[name])
    knobs.restore(snapshot.knobs)
    cursor.restore(snapshot.data)
    snapshot.random.restore()


def _copied(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().clone() for name, t in tensors.items() if not isinstance(t, UninitializedTensorMixin)}


def _write(tensor: torch.Tensor, kept: torch.Tensor | None) -> None:
    if kept is None:
        return
    if tensor.shape == kept.shape:
        tensor.copy_(kept)
    else:
        tensor.data = kept.clone()


def _with_extra_state(model: Model) -> dict[str, nn.Module]:
    plain = nn.Module.get_extra_state
    return {name: m for name, m in named_modules(model).items() if type(m).get_extra_state is not plain}


def _optimizer_state(optimizer: Optimizer) -> Any:
    """Per-parameter state and group options, copied as they are.

    ``load_state_dict`` would cast the state to the parameters' type; only optimizers with a ``state_dict`` of their own
    go through it.
    """
    if type(optimizer).state_dict is not Optimizer.state_dict:
        return copy.deepcopy(optimizer.state_dict())
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    state = [_deep(optimizer.state[p]) if p in optimizer.state else None for p in _parameters(optimizer)]
    return _deep(options), state


def _restore_optimizer(optimizer: Optimizer, kept: Any) -> None:
    if type(optimizer).state_dict is not Optimizer.state_dict:
        optimizer.load_state_dict(copy.deepcopy(kept))
        return
    options, states = kept
    for group, option in zip(optimizer.param_groups, options, strict=True):
        for key in set(group) - set(option) - {"params"}:
            del group[key]
        for key, value in _deep(option).items():
            if isinstance(value, torch.Tensor) and isinstance(group.get(key), torch.Tensor):
                group[key].copy_(value)
            else:
                group[key] = value
    optimizer.state.clear()
    for parameter, state in zip(_parameters(optimizer), states, strict=True):
        if state is not None:
            optimizer.state[parameter] = _deep(state)


def _parameters(optimizer: Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def _scheduler_state(scheduler: Any) -> Any:
    return copy.deepcopy(scheduler.state_dict())


def _deep(value: Any) -> Any:
    """A copy with every tensor detached and cloned."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _deep(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_deep(part) for part in value)
    return copy.deepcopy(value)


def _bytes(tensor: torch.Tensor) -> int:
    stored = tensor._values() if tensor.is_sparse else tensor
    return stored.numel() * stored.element_size()


def _tensors_in(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in _tensors_in(part)]
