"""Parameter groups split in place, so that norm layers and biases are not decayed. Training thread, at a safe point.

What is exempt: every bias, every parameter of torch's norm layers, and vectors of other modules whose class is named a
norm.
A split appends one group for each group that has both sorts, in their order, with all its options but a weight decay
of 0; a group that is exempt as a whole only loses its decay. The state stays with its parameters, which keep their
order within a group. Schedulers with a rate for each group are told of the new ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from nbdebug.records.errors import CommandError
from nbdebug.training.modules import Model, named_modules

NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
NO_DECAY = "no decay"
PER_GROUP = ("base_lrs", "max_lrs", "min_lrs", "base_momentums", "max_momentums", "lr_lambdas", "_last_lr")


@dataclass(frozen=True, slots=True)
class DecayGroup:
    """A present parameter group: which of its parameters, by place and name, would be decayed and which would not."""

    index: int
    decayed: tuple[int, ...]
    exempt: tuple[int, ...]
    decayed_names: tuple[str, ...]
    exempt_names: tuple[str, ...]

    @property
    def is_split(self) -> bool:
        """Whether a group of its own is made for the exempt ones."""
        return bool(self.decayed and self.exempt)


@dataclass
class DecaySplit:
    """A split that was made; :meth:`undo` takes it back."""

    optimizer: Optimizer
    plan: tuple[DecayGroup, ...]
    _params: list[list[torch.Tensor]] = field(default_factory=list)
    _names: list[list[str] | None] = field(default_factory=list)
    _decays: list[Any] = field(default_factory=list)
    _lists: list[tuple[Any, str, int]] = field(default_factory=list)

    def undo(self) -> None:
        """Put the groups back as they were, but for options that were changed since; the state is left as it is.

        Raises:
            CommandError: before anything is written, where groups were added or taken away since.
        """
        groups, made = self.optimizer.param_groups, sum(part.is_split for part in self.plan)
        now = [id(parameter) for group in groups for parameter in group["params"]]
        then = [id(parameter) for params in self._params for parameter in params]
        if len(groups) != len(self._params) + made or sorted(now) != sorted(then):
            raise CommandError("can't undo the split: the optimizer's parameter groups have been changed since")
        del groups[len(self._params) :]
        for group, params, names in zip(groups, self._params, self._names, strict=True):
            group["params"][:] = params
            if names is not None:
                group["param_names"] = names
        for part, decay in zip(self.plan, self._decays, strict=True):
            if part.exempt and not part.decayed:
                groups[part.index]["weight_decay"] = decay
        for scheduler, name, length in self._lists:
            setattr(scheduler, name, list(getattr(scheduler, name))[:length])


def decay_groups(model: Model, optimizer: Optimizer) -> tuple[DecayGroup, ...]:
    """How the parameter groups would be split, one entry for each; changes nothing.

    A parameter that the model does not hold is decayed as before, and named by its place.
    """
    owners = list(_owners(model))
    exempt: dict[int, bool] = {}
    names: dict[int, str] = {}
    for name, parameter, is_exempt in owners:
        names.setdefault(id(parameter), name)
        exempt[id(parameter)] = exempt.get(id(parameter), True) and is_exempt
    plan = []
    for index, group in enumerate(optimizer.param_groups):
        held = [(k, names.get(id(p), f"{index}.{k}"), exempt.get(id(p), False)) for k, p in enumerate(group["params"])]
        sorts = [[(k, name) for k, name, is_exempt in held if is_exempt is wanted] for wanted in (False, True)]
        places = [tuple(k for k, _ in sort) for sort in sorts]
        called = [tuple(name for _, name in sort) for sort in sorts]
        plan.append(DecayGroup(index, places[0], places[1], called[0], called[1]))
    return tuple(plan)


def is_split_off(group: str) -> bool:
    """Whether this is the name of a group that was split off as not decayed."""
    return group.endswith(f", {NO_DECAY}")


def split_mistakes(optimizer: Optimizer, plan: tuple[DecayGroup, ...]) -> list[str]:
    """Why a split can't be made, a line for each reason."""
    name = type(optimizer).__name__
    if isinstance(optimizer, torch.optim.LBFGS):
        return ["LBFGS can't be split: it takes one parameter group only, and has no weight decay"]
    mistakes = []
    if not all("weight_decay" in group for group in optimizer.param_groups):
        mistakes.append(f"{name} has no weight_decay to leave out")
    sizes = [len(part.decayed) + len(part.exempt) for part in plan]
    if sizes != [len(group["params"]) for group in optimizer.param_groups]:
        mistakes.append("the plan is not of these parameter groups: make it anew with decay_groups")
    elif any(str(group.get("name", "")).endswith(NO_DECAY) for group in optimizer.param_groups):
        mistakes.append(f"{name} is split already")
    elif not any(part.exempt for part in plan):
        mistakes.append(f"{name} holds no bias and no parameter of a norm layer")
    return mistakes


def split_decay(optimizer: Optimizer, plan: tuple[DecayGroup, ...], schedulers: Iterable[Any] = ()) -> DecaySplit:
    """Make a split without :func:`split_mistakes`, in place. ``schedulers`` are those of this optimizer.

    A new group is named after its own, by name or place: ``"head, no decay"``, ``"0, no decay"``.
    """
    groups = optimizer.param_groups
    split = DecaySplit(
        optimizer,
        plan,
        [list(group["params"]) for group in groups],
        [list(group["param_names"]) if "param_names" in group else None for group in groups],
        [group["weight_decay"] for group in groups],
    )
    sources = [part.index for part in plan if part.is_split]
    for scheduler in _leaves(schedulers):
        for name in PER_GROUP:
            values = getattr(scheduler, name, None)
            if isinstance(values, (list, tuple)) and len(values) == len(groups):
                split._lists.append((scheduler, name, len(values)))
                setattr(scheduler, name, [*values, *(_own(values[source]) for source in sources)])
    for part in plan:
        group = groups[part.index]
        if part.is_split:
            _split_off(optimizer, group, part)
        elif part.exempt:
            group["weight_decay"] = _none_of(group["weight_decay"])
    return split


def _split_off(optimizer: Optimizer, group: dict[str, Any], part: DecayGroup) -> None:
    params, names = list(group["params"]), group.get("param_names")
    options = {key: _own(value) for key, value in group.items() if key not in ("params", "param_names")}
    options["weight_decay"] = _none_of(group["weight_decay"])
    options["name"] = f"{group.get('name', part.index)}, {NO_DECAY}"
    moved = [params[k] if names is None else (names[k], params[k]) for k in part.exempt]
    group["params"][:] = [params[k] for k in part.decayed]
    if names is not None:
        group["param_names"] = [names[k] for k in part.decayed]
    optimizer.add_param_group({**options, "params": moved})


def _owners(model: Model) -> Iterator[tuple[str, torch.Tensor, bool]]:
    """Every parameter by each of its names, and whether it is exempt under that name."""
    for path, module in named_modules(model).items():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            whole = f"{path}.{name}" if path else name
            parts = whole.split(".")
            own = parts[parts.index("parametrizations") + 1] if "parametrizations" in parts[:-1] else name
            yield whole, parameter, _is_norm(module, parameter) or _is_bias(own)


def _is_norm(module: nn.Module, parameter: torch.Tensor) -> bool:
    named_so = "norm" in type(module).__name__.lower() and parameter.dim() <= 1
    return isinstance(module, NORMS) or named_so


def _is_bias(name: str) -> bool:
    return name == "bias" or name.startswith("bias_") or name.endswith("_bias")


def _none_of(decay: Any) -> Any:
    return torch.zeros_like(decay) if isinstance(decay, torch.Tensor) else 0.0


def _own(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _leaves(schedulers: Iterable[Any] | Mapping[str, Any]) -> Iterator[Any]:
    """Each scheduler, and those inside chains and sequences."""
    for scheduler in schedulers:
        yield scheduler
        yield from _leaves(getattr(scheduler, "_schedulers", ()))
