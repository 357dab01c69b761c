"""What a user's step does outside of torch, as far as it shows: counters and lists that it reaches. Any thread.

Such things can't be put back, so they are named.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

from nbdebug.training.trainer import Trainer

PLAIN = (int, float, str, bool, type(None))
SIZED = (list, dict, set, bytearray)


class Outside:
    """How plain things that the user's functions reach stood before; :meth:`notes` says what changed since."""

    def __init__(self, trainer: Trainer) -> None:
        self._functions = [each for each in (trainer.step, trainer.loss_fn) if each is not None]
        self._has_step = trainer.step is not None
        self._before = self._state()

    def notes(self, steps: int) -> list[str]:
        """What to know of what could not be put back, each as a sentence."""
        now = self._state()
        changed = [name for name in now if name in self._before and now[name] != self._before[name]]
        notes = [f"{name} was changed by your step, and can't be put back" for name in changed]
        if self._has_step and steps:
            notes.append(
                f"your step ran {steps:,} times on the side: what it writes, prints or counts outside of torch stays"
            )
        return notes

    def _state(self) -> dict[str, Any]:
        return {name: _mark(value) for function in self._functions for name, value in _reached(function)}


def _mark(value: Any) -> Any:
    return len(value) if isinstance(value, SIZED) else value


def _reached(function: Any) -> Iterator[tuple[str, Any]]:
    """Names and values that a function reads: closure, globals, and attributes of what it is bound to."""
    if isinstance(function, MethodType):
        owner = function.__self__
        yield from _attributes(owner, type(owner).__name__)
        function = function.__func__
    if not isinstance(function, FunctionType):
        yield from _attributes(function, type(function).__name__)
        return
    found = inspect.getclosurevars(function)
    for name, value in {**found.globals, **found.nonlocals}.items():
        if isinstance(value, (*PLAIN, *SIZED)):
            yield name, value
        elif not isinstance(value, (type, ModuleType, FunctionType)):
            yield from _attributes(value, name)


def _attributes(owner: Any, name: str) -> Iterator[tuple[str, Any]]:
    for key, value in list(getattr(owner, "__dict__", {}).items()):
        if isinstance(value, (*PLAIN, *SIZED)) and not key.startswith("_"):
            yield f"{name}.{key}", value
