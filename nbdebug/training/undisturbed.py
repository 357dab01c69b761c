"""A look at a module on the side: whatever its forward changes is put back. Training thread, within a step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from nbdebug.training.data import generator_state, generators_in, set_generator
from nbdebug.training.module_state import PLAIN
from nbdebug.training.modules import modes, restore_modes
from nbdebug.training.rng import preserved


@contextmanager
def undisturbed(module: nn.Module) -> Iterator[None]:
    """Random states (of generators that modules hold too), buffers, plain attributes and modes are as before.

    What the forward left alone is not touched, not even written with the same value.
    """
    with preserved(), torch.no_grad():
        parts = list(module.modules())
        flags = modes(module)
        generators = [(source, generator_state(source)) for part in parts for source in generators_in(part)]
        buffers = [(part, key, held, _copied(held)) for part in parts for key, held in part._buffers.items()]
        attributes = [(part, _attributes(part)) for part in parts]
        try:
            yield
        finally:
            for part, key, held, copy in buffers:
                part._buffers[key] = _put_back(held, copy)
            for part, before in attributes:
                _restore(part, before)
            for source, state in generators:
                set_generator(source, state)
            restore_modes(flags)


def _copied(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else value


def _put_back(held: Any, copy: Any) -> Any:
    """The object that was there, with the values that it had."""
    if isinstance(held, torch.Tensor) and not _same(held, copy):
        held.copy_(copy)
    return held


def _same(held: torch.Tensor, copy: torch.Tensor) -> bool:
    if held.shape != copy.shape:
        held.resize_(copy.shape)
        return False
    return bool(torch.equal(held, copy))


def _attributes(module: nn.Module) -> dict[str, tuple[Any, Any]]:
    """Tensors, numbers and texts that a module carries, each with a copy."""
    return {
        key: (value, _copied(value))
        for key, value in vars(module).items()
        if isinstance(value, (*PLAIN, torch.Tensor)) and key != "training"
    }


def _restore(module: nn.Module, before: dict[str, tuple[Any, Any]]) -> None:
    for key in [k for k, v in vars(module).items() if isinstance(v, (*PLAIN, torch.Tensor)) and k not in before]:
        if key != "training":
            delattr(module, key)
    for key, (held, copy) in before.items():
        if vars(module).get(key) is not held or isinstance(held, torch.Tensor):
            vars(module)[key] = _put_back(held, copy)
