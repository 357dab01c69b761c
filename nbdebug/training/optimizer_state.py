"""The part of a snapshot that an optimizer holds: its state by parameter and its groups' options. Training thread.

Copied as they are, since ``load_state_dict`` would cast the state to the parameters' type; only optimizers that have a
``state_dict`` of their own go through it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch.optim import Optimizer

from nbdebug.records.errors import CommandError


def capture(optimizer: Optimizer) -> Any:
    """A copy of state and options."""
    if has_own_state_dict(optimizer):
        return copy.deepcopy(optimizer.state_dict())
    options = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    state = [deep_copy(optimizer.state[p]) if p in optimizer.state else None for p in parameters_of(optimizer)]
    return deep_copy(options), state, [len(group["params"]) for group in optimizer.param_groups]


def refuse_if_changed(optimizer: Optimizer, kept: Any) -> None:
    """Refuse to restore where the parameter groups of that time are no longer the first ones of today."""
    if has_own_state_dict(optimizer):
        return
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if sizes[: len(kept[2])] != kept[2]:
        raise CommandError(
            f"can't go back: {type(optimizer).__name__} held parameter groups of {kept[2]} parameters then, "
            f"and of {sizes} now"
        )


def differences(optimizer: Optimizer, kept: Any) -> list[str]:
    """Why a kept state does not fit this optimizer, a line for each reason."""
    kind = type(optimizer).__name__
    if has_own_state_dict(optimizer):
        return [] if isinstance(kept, dict) else [f"{kind} keeps its state in a way of its own, the snapshot's did not"]
    if isinstance(kept, dict):
        return [f"the snapshot's optimizer keeps its state in a way of its own, {kind} does not"]
    options, _, sizes = kept
    here = [len(group["params"]) for group in optimizer.param_groups]
    if here[: len(sizes)] != list(sizes):
        return [f"{kind} held parameter groups of {list(sizes)} parameters in the snapshot, and of {here} here"]
    names = {key for group in optimizer.param_groups for key in group} - {"params"}
    unknown = sorted(set(options[0]) - names - {"initial_lr", "max_lr", "min_lr"}) if options else []
    if unknown:
        return [f"{kind} has no option {', '.join(map(repr, unknown))}, which the snapshot's optimizer had"]
    return []


def restore(optimizer: Optimizer, kept: Any) -> None:
    """Put it back; parameter groups added since are taken off again."""
    if has_own_state_dict(optimizer):
        optimizer.load_state_dict(copy.deepcopy(kept))
        return
    options, states, _ = kept
    del optimizer.param_groups[len(options) :]
    written: set[int] = set()
    for group, option in zip(optimizer.param_groups, options, strict=True):
        for key in set(group) - set(option) - {"params"}:
            del group[key]
        for key, value in deep_copy(option).items():
            present = group.get(key)
            tensors = isinstance(value, torch.Tensor) and isinstance(present, torch.Tensor)
            if present is not None and tensors and id(present) not in written:  # groups may share one rate tensor
                present.copy_(value)
                written.add(id(present))
            else:
                group[key] = value
    optimizer.state.clear()
    for parameter, state in zip(parameters_of(optimizer), states, strict=True):
        if state is not None:
            optimizer.state[parameter] = deep_copy(state)


def forget(optimizer: Optimizer, parameters: Iterable[torch.nn.Parameter]) -> None:
    """Clear an optimizer's state of these parameters; LBFGS keeps that of all under its first one."""
    redrawn = set(parameters)
    if isinstance(optimizer, torch.optim.LBFGS) and set(parameters_of(optimizer)) & redrawn:
        optimizer.state.clear()
    for parameter in redrawn:
        optimizer.state.pop(parameter, None)


def parameters_of(optimizer: Optimizer) -> list[torch.Tensor]:
    """All parameters, in the order of the groups."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def deep_copy(value: Any) -> Any:
    """A copy with every tensor detached and cloned."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: deep_copy(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(deep_copy(part) for part in value)
    return copy.deepcopy(value)


def has_own_state_dict(optimizer: Optimizer) -> bool:
    """Whether its state is read and written by methods of its own class."""
    return type(optimizer).state_dict is not Optimizer.state_dict
