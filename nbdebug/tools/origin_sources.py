"""What was there before the step, by name: weights, buffers, the batch, optimizers' state. Training thread only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum, auto
from itertools import chain, islice
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from nbdebug.tools.origin_marks import bad_part
from nbdebug.tools.origin_values import (
    count_bad,
    dense,
    looks_like_mask,
    only_minus_inf,
    readable,
    span,
    storage_key,
)
from nbdebug.training.modules import named_modules

DEPTH = 4
MOST_VALUES = 256


class Kind(Enum):
    """What a tensor is for."""

    PARAMETER = auto()
    BUFFER = auto()
    BATCH = auto()
    GRADIENT = auto()
    STATE = auto()


@dataclass(frozen=True, slots=True)
class Source:
    """A tensor from before the step; ``module`` by dotted name where one owns it, ``bad`` how many are not finite."""

    kind: Kind
    name: str
    tensor: torch.Tensor
    module: str | None
    bad: int

    @property
    def wanted(self) -> bool:
        """Whether what is not finite in it is so on purpose, as in a mask that is to be added."""
        values = readable(self.tensor)
        if values is None or self.kind in (Kind.GRADIENT, Kind.STATE):
            return False
        if self.kind is Kind.BUFFER:
            return only_minus_inf(values) or (looks_like_mask(values) and "running_" not in self.name)
        return looks_like_mask(values) and only_minus_inf(values)


class Sources:
    """All of them, found by the memory that they have."""

    def __init__(self, roots: Mapping[str, nn.Module], optimizers: Mapping[str, Optimizer], batch: Any) -> None:
        self.modules = named_modules(roots)
        self.parameters: dict[str, tuple[nn.Parameter, str]] = {}
        self.buffers: dict[str, tuple[torch.Tensor, str]] = {}
        self._optimizers = optimizers
        self._names = {id(module): name for name, module in self.modules.items()}
        self._by_memory: dict[int, list[Source]] = {}
        self._collect()
        for source in [*self._owned(), *_of_batch(batch), *self._left_over()]:
            tensor = dense(source.tensor)
            if tensor is not None:
                self._by_memory.setdefault(storage_key(tensor), []).append(source)
        self.batch = [tensor for _, tensor in named_parts(batch)]

    def _collect(self) -> None:
        for prefix, module in self.modules.items():
            start = f"{prefix}." if prefix else ""
            for name, parameter in module._parameters.items():
                if parameter is not None and not nn.parameter.is_lazy(parameter):
                    self.parameters.setdefault(start + name, (parameter, prefix))
            for name, buffer in module._buffers.items():
                if buffer is not None and not nn.parameter.is_lazy(buffer):
                    self.buffers.setdefault(start + name, (buffer, prefix))
        known = {id(parameter) for parameter, _ in self.parameters.values()}
        for prefix, optimizer in self._optimizers.items():
            start = f"{prefix}." if prefix else ""
            for place, group in enumerate(optimizer.param_groups):
                for number, parameter in enumerate(group["params"]):
                    if id(parameter) not in known:
                        name = f'{start}param_groups[{place}]["params"][{number}]'
                        self.parameters[name] = (parameter, "")

    def _owned(self) -> Iterator[Source]:
        for name, (parameter, module) in self.parameters.items():
            yield Source(Kind.PARAMETER, name, parameter, module, count_bad(parameter))
        for name, (buffer, module) in self.buffers.items():
            yield Source(Kind.BUFFER, name, buffer, module, count_bad(buffer))

    def _left_over(self) -> Iterator[Source]:
        """Gradients and optimizer state that are bad already; the others need not be kept alive."""
        for name, (parameter, module) in self.parameters.items():
            if parameter.grad is not None and bad_part(parameter.grad):
                yield Source(Kind.GRADIENT, f"{name}.grad", parameter.grad, module, count_bad(parameter.grad))
        for name, module, tensor in self.states():
            if bad_part(tensor):
                yield Source(Kind.STATE, name, tensor, module, count_bad(tensor))

    def states(self) -> Iterator[tuple[str, str, torch.Tensor]]:
        """The tensors in the optimizers' state as it is now, such as "exp_avg of fc.weight", with their modules."""
        for name, (parameter, module) in self.parameters.items():
            for optimizer in self._optimizers.values():
                for key, value in dict(optimizer.state.get(parameter, {})).items():
                    if isinstance(value, torch.Tensor):
                        yield f"{key} of {name}", module, value

    def of(self, tensor: torch.Tensor) -> Source | None:
        """The one whose memory the tensor is in; where several are, one that is not finite."""
        tensor_ = dense(tensor)
        if tensor_ is None:
            return None
        start, end = span(tensor_)
        found = [
            source
            for source in self._by_memory.get(storage_key(tensor_), ())
            if (other := dense(source.tensor)) is not None and span(other)[0] < end and start < span(other)[1]
        ]
        return max(found, key=lambda source: source.bad > 0, default=None)

    def owner(self, tensors: list[torch.Tensor]) -> tuple[str, str] | None:
        """The parameter, and its module, that one of the tensors is, or is the gradient of."""
        for tensor in tensors:
            source = self.of(tensor)
            if source is not None and source.kind is Kind.PARAMETER:
                return source.name, source.module or ""
        keys = {storage_key(tensor) for tensor in map(dense, tensors) if tensor is not None}
        for name, (parameter, module) in self.parameters.items():
            gradient = dense(parameter.grad) if parameter.grad is not None else None
            if gradient is not None and storage_key(gradient) in keys:
                return name, module
        return None

    def name_now(self, tensor: torch.Tensor) -> str | None:
        """What the tensor is at this moment: the gradient of a parameter, or in an optimizer's state."""
        here = dense(tensor)
        gradients = ((f"{name}.grad", given.grad) for name, (given, _) in self.parameters.items())
        states = ((name, state) for name, _, state in self.states())
        for name, other in chain(gradients, states):
            there = None if other is None else dense(other)
            if here is not None and there is not None and storage_key(there) == storage_key(here):
                return name
        return None

    def name_of(self, module: nn.Module) -> str | None:
        """Its dotted name, ``None`` where it is in no root."""
        return self._names.get(id(module))

    def bad_before(self, tensor: torch.Tensor) -> int:
        """How many values of a parameter, a buffer or the optimizer's state were not finite before the step."""
        source = self.of(tensor)
        return 0 if source is None else source.bad


def _of_batch(batch: Any) -> Iterator[Source]:
    for name, tensor in named_parts(batch):
        yield Source(Kind.BATCH, name, tensor, None, count_bad(tensor))


def named_parts(batch: Any, name: str = "batch") -> list[tuple[str, torch.Tensor]]:
    """The tensors of a batch, named as Python reaches them: ``batch[0]``, ``batch["x"]``, ``batch.x``."""
    found: list[tuple[str, torch.Tensor]] = []
    waiting = [(batch, name, DEPTH)]
    visited = 0
    while waiting and visited < MOST_VALUES:
        value, name, depth = waiting.pop(0)
        visited += 1
        if isinstance(value, torch.Tensor):
            found.append((name, value))
        elif depth:
            waiting += [(part, name + how, depth - 1) for how, part in islice(_parts(value), MOST_VALUES)]
    return found


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        yield from ((f'["{key}"]' if isinstance(key, str) else f"[{key!r}]", part) for key, part in value.items())
    elif isinstance(value, tuple) and hasattr(value, "_fields"):
        yield from ((f".{field}", part) for field, part in zip(value._fields, value, strict=True))
    elif isinstance(value, (tuple, list)):
        yield from ((f"[{place}]", part) for place, part in enumerate(value))
    elif is_dataclass(value) and not isinstance(value, type):
        yield from ((f".{field.name}", getattr(value, field.name, None)) for field in fields(value))
    elif hasattr(value, "__dict__") and not isinstance(value, (type, nn.Module)):
        yield from ((f".{key}", part) for key, part in vars(value).items())
