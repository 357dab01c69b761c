"""What a user's function can reach: closures, globals, the object that it is bound to. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from nbdebug.training.trainer import Trainer

CALLS_AWAY = 5


def calls_compiled_code(trainer: Trainer) -> bool:
    """Whether the step is compiled as a function, or calls one that is: then models may run inside of it."""
    return trainer.step is not None and any(is_compiled_function(value) for value in _reached((trainer.step,)))


def compares_compiled(loss_fn: Any) -> bool:
    """Whether the loss is compiled, or calls a function that is."""
    if isinstance(loss_fn, nn.Module):
        return any(has_compiled_code(part) for part in loss_fn.modules())
    return any(is_compiled_function(value) or hasattr(value, "_orig_mod") for value in _reached((loss_fn,)))


def has_compiled_code(module: nn.Module) -> bool:
    """Whether a module is compiled, or has a method that is, or its forward calls a function that is."""
    if hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None:
        return True
    own = [each for each in type(module).__mro__ if each.__module__.partition(".")[0] != "torch"]
    methods = [value for each in own for value in vars(each).values()]
    attributes = list(vars(module).values())
    forward = [module.forward] if own and inspect.ismethod(getattr(module, "forward", None)) else []
    return any(is_compiled_function(value) for value in (*methods, *attributes, *_reached(forward)))


def is_compiled_function(value: Any) -> bool:
    """Whether ``torch.compile`` made it out of a function; compiled modules are looked at in their own way."""
    return not isinstance(value, nn.Module) and hasattr(value, "_torchdynamo_orig_callable")


def _reached(functions: Iterable[Any]) -> Iterator[Any]:
    """These functions, what they can reach, and what those functions of the user's can, some calls away."""
    seen: set[int] = set()
    layer = list(functions)
    for _ in range(CALLS_AWAY):
        fresh = [value for value in layer if id(value) not in seen]
        seen.update(map(id, fresh))
        yield from fresh
        layer = [value for function in fresh if _is_the_users(function) for value in visible_to(function)]


def _is_the_users(value: Any) -> bool:
    """Whether it is worth looking into: a function, or an object that is called, but none of a library's."""
    if isinstance(value, (type, nn.Module)) or not callable(value):
        return False
    home = str(getattr(value, "__module__", "") or "").partition(".")[0]
    return home not in ("torch", "numpy", "builtins", "functools")


def visible_to(function: Any) -> Iterator[Any]:
    """What a function reaches by closure, global name, bound object or ready-made argument; one level deep."""
    while isinstance(function, functools.partial):
        yield from function.args
        yield from function.keywords.values()
        function = function.func
    owner = getattr(function, "__self__", None)
    if owner is not None:
        yield from vars(owner).values() if hasattr(owner, "__dict__") else ()
        function = getattr(function, "__func__", function)
    elif function is not None and not inspect.isfunction(function):
        yield from vars(function).values() if hasattr(function, "__dict__") else ()
        function = vars(type(function)).get("__call__")
    if inspect.isfunction(function):
        yield from _held(function.__closure__ or ())
        names = function.__code__.co_names
        yield from (function.__globals__[name] for name in names if name in function.__globals__)
        yield from (function.__defaults__ or ())


def _held(cells: Iterable[Any]) -> Iterator[Any]:
    """What closures hold; a name that is assigned only later holds nothing yet."""
    for cell in cells:
        try:
            yield cell.cell_contents
        except ValueError:
            continue
