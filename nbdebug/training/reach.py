"""What a user's function can reach: closures, globals, the object that it is bound to. Pure."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn

from nbdebug.training.trainer import Trainer


def calls_compiled_code(trainer: Trainer) -> bool:
    """Whether the step, or the loss, is compiled as a function, or calls one that is: then models run inside of it."""
    functions = [trainer.step, trainer.loss_fn]
    reached = [value for function in functions for value in (function, *visible_to(function))]
    return any(hasattr(value, "_torchdynamo_orig_callable") and not isinstance(value, nn.Module) for value in reached)


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
