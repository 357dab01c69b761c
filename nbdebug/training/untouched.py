"""Forward passes on the side: all that a model and a loss could change by being called is as before. Training thread.

Objects stay the same objects, tensors keep their memory and its bits, lists and counters their contents. What can't
be put back for certain, such as an iterator that a layer draws from, is refused before anything is called.
"""

from __future__ import annotations

import functools
import inspect
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from nbdebug.training.data import generator_state, set_generator
from nbdebug.training.reach import visible_to
from nbdebug.training.rng import preserved

MOST_OBJECTS = 200_000
MOST_OTHER_BYTES = 64_000_000  # of tensors and arrays that no module holds
SHARE_OF_FREE_MEMORY = 0.3
LIBRARIES = ("torch", "numpy", "builtins", "functools", "collections", "typing", "math", "nbdebug")
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType, torch.dtype, torch.device)
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)


class Refused(Exception):
    """A look can't be made; says why."""


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A tensor, its memory, a copy of the bits, and what hangs on it."""

    tensor: torch.Tensor
    memory: torch.Tensor
    copy: torch.Tensor
    gradient: torch.Tensor | None
    learns: bool

    def put_back(self) -> None:
        tensor, memory = self.tensor, self.memory
        if not torch.equal(memory, self.copy):
            memory.copy_(self.copy)
        if tensor.dtype != memory.dtype or tensor.shape != memory.shape or tensor.data_ptr() != memory.data_ptr():
            tensor.data = memory
        if tensor.is_leaf:
            if tensor.requires_grad != self.learns:
                tensor.requires_grad_(self.learns)
            if tensor.grad is not self.gradient:
                tensor.grad = self.gradient


class Kept:
    """What can be reached from some objects, and how it was.

    Raises:
        Refused: it could not be put back.
    """

    def __init__(self, roots: Iterable[Any]) -> None:
        self._tensors: list[_Tensor] = []
        self._arrays: list[tuple[Any, Any]] = []
        self._containers: list[tuple[Any, Any]] = []
        self._cells: list[tuple[Any, Any]] = []
        self._globals: list[tuple[dict[str, Any], str, Any]] = []
        self._fields: list[tuple[Any, str, Any]] = []
        self._generators: list[tuple[Any, Any]] = []
        self._seen: dict[int, Any] = {}
        self._others_bytes = 0
        waiting: list[tuple[Any, bool]] = [(root, True) for root in roots]
        while waiting:
            value, of_module = waiting.pop()
            if isinstance(value, PLAIN) or id(value) in self._seen:
                continue
            self._seen[id(value)] = value
            if len(self._seen) > MOST_OBJECTS:
                raise Refused("the model or the loss holds too much to be put back for certain")
            inside = of_module and isinstance(value, (nn.Module, dict, list, torch.Tensor))
            waiting += [(part, inside) for part in self._keep(value, of_module)]

    def _keep(self, value: Any, of_module: bool) -> list[Any]:
        """Note how a thing is; what it holds."""
        if isinstance(value, torch.Tensor):
            return self._keep_tensor(value, of_module)
        if isinstance(value, np.ndarray):
            self._count(value.nbytes)
            self._arrays.append((value, value.copy()))
            return list(value.flat) if value.dtype == object else []
        if isinstance(value, GENERATORS):
            self._generators.append((value, generator_state(value)))
            return []
        if isinstance(value, (dict, list, set, deque)):
            self._containers.append((value, value.copy() if not isinstance(value, dict) else dict(value)))
            return list(value.values()) + _attributes(value) if isinstance(value, dict) else list(value)
        if isinstance(value, (tuple, frozenset)):
            return list(value)
        if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
            return self._keep_function(value)
        return self._keep_object(value)

    def _keep_tensor(self, tensor: torch.Tensor, of_module: bool) -> list[Any]:
        if tensor.layout is not torch.strided or tensor.is_meta or tensor.is_quantized:
            raise Refused(f"a tensor that the model holds ({tensor.layout}) can't be put back for certain")
        if not of_module:
            self._count(tensor.numel() * tensor.element_size())
        memory = tensor.data
        gradient = tensor.grad if tensor.is_leaf else None
        self._tensors.append(_Tensor(tensor, memory, memory.clone(), gradient, tensor.requires_grad))
        return [] if gradient is None else [gradient]

    def _count(self, size_bytes: int) -> None:
        self._others_bytes += size_bytes
        if self._others_bytes > MOST_OTHER_BYTES:
            raise Refused("the model or the loss holds too much data to be put back quickly")

    def _keep_function(self, function: Any) -> list[Any]:
        """A function of the user's: its closure and the globals that it names; of a library's nothing is looked at."""
        if _is_a_librarys(function):
            return list(visible_to(function)) if isinstance(function, functools.partial) else _owner(function)
        plain = inspect.unwrap(getattr(function, "__func__", function))
        while isinstance(plain, functools.partial):
            plain = plain.func
        if isinstance(plain, types.FunctionType):
            self._cells += [(cell, _contents(cell)) for cell in plain.__closure__ or ()]
            named = plain.__globals__
            self._globals += [(named, name, named[name]) for name in plain.__code__.co_names if name in named]
        return [*visible_to(function), *_owner(function), *_attributes(plain)]

    def _keep_object(self, value: Any) -> list[Any]:
        if isinstance(value, torch.jit.ScriptModule):
            raise Refused("a part is compiled by torch.jit, and can't be looked into")
        kind = type(value)
        if hasattr(kind, "__next__"):
            raise Refused(f"the model or the loss draws from an iterator ({kind.__name__})")
        if _is_a_librarys(kind) and not isinstance(value, nn.Module):
            return []
        held = getattr(value, "__dict__", {})
        self._containers.append((held, dict(held)))
        return [*held.values(), *self._keep_slots(value), *self._keep_class(kind)]

    def _keep_slots(self, value: Any) -> list[Any]:
        names = [name for kind in type(value).__mro__ for name in _slots(kind)]
        held = [(value, name, getattr(value, name)) for name in names if hasattr(value, name)]
        self._fields += held
        return [part for _, _, part in held]

    def _keep_class(self, kind: type) -> list[Any]:
        """What a class of the user's holds: methods, counters."""
        if id(kind) in self._seen:
            return []
        self._seen[id(kind)] = kind
        own = [each for each in kind.__mro__ if not _is_a_librarys(each)]
        held = [(each, name, part) for each in own for name, part in vars(each).items() if not name.startswith("__")]
        found = [part.__func__ if isinstance(part, (staticmethod, classmethod)) else part for _, _, part in held]
        self._fields += [(each, name, part) for each, name, part in held if isinstance(part, PLAIN)]
        return [part for part in found if isinstance(part, (types.FunctionType, list, dict, set, deque))]

    def put_back(self) -> None:
        """The objects, their memory, its bits."""
        for container, before in self._containers:
            _refill(container, before)
        for cell, contents in self._cells:
            if _contents(cell) is not contents:
                cell.cell_contents = contents
        for names, name, value in self._globals:
            if names.get(name) is not value:
                names[name] = value
        for owner, name, value in self._fields:
            if getattr(owner, name, EMPTY) is not value:
                (setattr if isinstance(owner, type) else object.__setattr__)(owner, name, value)
        for each in self._tensors:
            each.put_back()
        for array, copy in self._arrays:
            array[...] = copy
        for source, state in self._generators:
            set_generator(source, state)


@contextmanager
def untouched(roots: Iterable[Any]) -> Iterator[None]:
    """Within, what is reached from ``roots`` may be called; afterwards it is as it was, random states included.

    Raises:
        Refused: something could not be put back; nothing was called yet.
    """
    kept = Kept(roots)
    with preserved():
        try:
            yield
        finally:
            kept.put_back()


def refuse_if_short_of_memory(parameters: Iterable[torch.Tensor]) -> None:
    """Refuse where copies of weights and gradients would crowd a device."""
    needed: dict[torch.device, int] = {}
    for tensor in parameters:
        if tensor.device.type == "cuda":
            needed[tensor.device] = needed.get(tensor.device, 0) + 2 * tensor.numel() * tensor.element_size()
    for device, size_bytes in needed.items():
        free, _ = torch.cuda.mem_get_info(device)
        if size_bytes > SHARE_OF_FREE_MEMORY * free:
            raise Refused(f"there is too little memory left on {device} to keep a copy of the weights meanwhile")


EMPTY = object()


def _contents(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is assigned only later
        return EMPTY


def _refill(container: Any, before: Any) -> None:
    if isinstance(container, dict):
        if list(container) != list(before) or any(container[key] is not value for key, value in before.items()):
            container.clear()
            container.update(before)
    elif len(container) != len(before) or any(a is not b for a, b in zip(container, before, strict=True)):
        container.clear()
        (container.update if isinstance(container, set) else container.extend)(before)


def _attributes(value: Any) -> list[Any]:
    return [vars(value)] if hasattr(value, "__dict__") and vars(value) else []


def _owner(function: Any) -> list[Any]:
    owner = getattr(function, "__self__", None)
    return [] if owner is None or isinstance(owner, (type, types.ModuleType)) else [owner]


def _slots(kind: type) -> list[str]:
    named = vars(kind).get("__slots__", ())
    return [name for name in ([named] if isinstance(named, str) else named) if name not in ("__dict__", "__weakref__")]


def _is_a_librarys(value: Any) -> bool:
    home = getattr(value, "__module__", None) or getattr(getattr(value, "func", None), "__module__", None)
    return str(home or "builtins").partition(".")[0] in LIBRARIES
