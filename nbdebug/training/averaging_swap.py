"""Putting other values into a live model for a while, batch-norm statistics included. Training thread.

Tensors stay the same objects, in the same memory, with the same version counters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parameter import UninitializedTensorMixin  # type: ignore[attr-defined]

from nbdebug.records.errors import ConfigurationError
from nbdebug.training.modules import Model, device_of, modes, named_modules, restore_modes, roots
from nbdebug.training.rng import preserved


def recompute_statistics(model: Model, batches: Iterable[Any], forward: Callable[[Any], Any] | None = None) -> None:
    """Make the statistics of batch norms anew, as equal averages over these batches, in new buffers.

    Those in training mode only, where there are some: a norm that was frozen keeps what it has. Random states, modes
    and momenta are as before afterwards.
    """
    norms = [m for m in named_modules(model).values() if isinstance(m, _BatchNorm) and m.running_mean is not None]
    norms = [norm for norm in norms if norm.training] or norms
    if not norms:
        return
    call = forward or _plain_forward(model)
    flags, momenta = modes(model), [norm.momentum for norm in norms]
    try:
        for module in flags:
            module.training = False
        for norm in norms:
            norm._buffers.update({k: None if b is None else b.clone() for k, b in norm._buffers.items()})
            norm.reset_running_stats()
            norm.momentum = None
            norm.training = True
        with preserved(), torch.no_grad():
            for batch in batches:
                call(batch)
    finally:
        restore_modes(flags)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum


def _plain_forward(model: Model) -> Callable[[Any], Any]:
    if not isinstance(model, nn.Module):
        raise ConfigurationError("several models have no forward of their own: give forward=, a function of a batch")

    def forward(batch: Any) -> Any:
        inputs = batch[0] if isinstance(batch, (tuple, list)) else batch
        return model(inputs.to(device_of(model)))

    return forward


@dataclass(frozen=True, slots=True)
class Held:
    """Every parameter and buffer with the memory that it has and a copy of its bits."""

    tensors: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    buffers: list[tuple[nn.Module, str, torch.Tensor | None]]

    @classmethod
    def of(cls, model: Model) -> Held:
        """What the model holds now."""
        tensors = named_tensors(model, buffers=True).values()
        modules = named_modules(model).values()
        buffers = [(module, key, buffer) for module in modules for key, buffer in dict(module._buffers.items()).items()]
        return cls([(tensor, tensor.data, tensor.detach().clone()) for tensor in tensors], buffers)

    def put_back(self) -> None:
        """The objects, their memory, its bits."""
        for module, key, buffer in self.buffers:
            if module._buffers[key] is not buffer:
                module._buffers[key] = buffer
        for tensor, memory, copy in self.tensors:
            if not _is_expanded(memory) or not torch.equal(memory, copy):
                memory.copy_(copy)
            if tensor.dtype != memory.dtype or tensor.data_ptr() != memory.data_ptr():
                tensor.data = memory


def _is_expanded(tensor: torch.Tensor) -> bool:
    """Whether several elements share their memory, so that it can't be written."""
    return any(stride == 0 and size > 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True))


def named_tensors(model: Model, *, buffers: bool) -> dict[str, torch.Tensor]:
    """Parameters, and buffers where wanted, each once under its first name; none without a shape."""
    found: dict[int, tuple[str, torch.Tensor]] = {}
    for name, module in named_modules(model).items():
        for place in (module._parameters, module._buffers) if buffers else (module._parameters,):
            for key, tensor in place.items():
                if tensor is not None and not isinstance(tensor, UninitializedTensorMixin):
                    found.setdefault(id(tensor), (f"{name}.{key}" if name else key, tensor))
    return dict(found.values())


def signature(model: Model, *, buffers: bool) -> list[Any]:
    """What tells that a model holds other tensors now; without names, which would take longer than the update."""
    found: list[Any] = []
    waiting: list[nn.Module] = list(roots(model).values())
    seen: set[nn.Module] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        for place in (module._parameters, module._buffers) if buffers else (module._parameters,):
            for tensor in place.values():
                if tensor is not None:
                    found += (id(tensor), type(tensor), tensor.dtype, tensor.device)
        waiting.extend(child for child in module._modules.values() if child is not None)
    return found
