"""Tensors by numbers: each one met in a step gets one, and is told apart by it for as long as it lives.

Where a tensor was there before the step, its number's :class:`Value` says what it was. Pure; training thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer
from torch.utils.weak import WeakTensorKeyDictionary

from nbdebug.checks.preflight.hidden import hidden_tensors
from nbdebug.checks.preflight.leaves import leaves
from nbdebug.checks.preflight.trace import Value
from nbdebug.training.modules import Model, named_modules, named_parameters

WEIGHTS = ("weight ", "hidden ", "held ")


class Numbering:
    """Writes what it meets into ``values``. ``of_batch`` are the batch's tensors and what was made of them alone."""

    def __init__(self, values: dict[int, Value]) -> None:
        self.of_batch: set[int] = set()
        self._values = values
        self._numbers: Any = WeakTensorKeyDictionary()

    def number(self, tensor: torch.Tensor, source: str = "") -> int:
        """A tensor's number, a new one at the first meeting."""
        number = self._numbers.get(tensor)
        if number is None:
            number = len(self._values) + 1
            self._numbers[tensor] = number
            shape = tuple(tensor.shape) if not is_lazy(tensor) and tensor.layout is torch.strided else ()
            learns, leaf = tensor.requires_grad, tensor.is_leaf
            self._values[number] = Value(number, shape, tensor.dtype, learns, source, leaf=leaf)
        return int(number)

    def within(self, value: Any) -> tuple[int, ...]:
        """The numbers of the tensors in arguments or results."""
        if isinstance(value, torch.Tensor):
            return (self.number(value),)
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, (tuple, list)) else ()
        return tuple(number for part in parts for number in self.within(part))

    def is_data(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor comes from the batch alone, and has no gradient."""
        return not tensor.requires_grad and self.number(tensor) in self.of_batch

    def is_weight(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor learns, is made of what learns, or is one of the model's parameters that do not."""
        return tensor.requires_grad or self._values[self.number(tensor)].source.startswith(WEIGHTS)

    def made(self, inputs: tuple[int, ...], outputs: tuple[int, ...]) -> None:
        """A call made ``outputs`` of ``inputs``: those that do not learn are of the batch if one of these is."""
        if not self.of_batch.isdisjoint(inputs):
            self.of_batch.update(number for number in outputs if not self._values[number].learns)

    def meet(self, model: Model, batch: Any) -> None:
        """Number what is there before the step."""
        for name, parameter in named_parameters(model).items():
            self.number(parameter, f"weight {name}")
        for prefix, module in named_modules(model).items():
            for key, buffer in module._buffers.items():
                if buffer is not None:
                    self.number(buffer, f"buffer {prefix}.{key}".replace(" .", " "))
        for name, hidden in hidden_tensors(model).items():
            self.number(hidden, f"hidden {name}")
        for name, tensor in leaves(batch):
            self.of_batch.add(self.number(tensor, name))

    def meet_held(self, optimizers: Mapping[str, Optimizer]) -> None:
        """Number what optimizers hold and the model does not know."""
        for name, optimizer in optimizers.items():
            for held in (each for group in optimizer.param_groups for each in group["params"]):
                value = self._values[self.number(held)]
                if not value.source or value.source.startswith("hidden"):
                    value.source = f"held {name}".rstrip()
