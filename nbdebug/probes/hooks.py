"""The one place where module hooks are put on, so that they all come off. Training thread only."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

ForwardHook = Callable[[nn.Module, Any, Any], None]


class HookSet:
    """Forward hooks that live for one step. A hook that raises stops all; the model's own forward goes on.

    ``seconds`` is what the hooks took since the last :meth:`remove`; ``error`` is what one of them raised.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error: Exception | None = None
        self._handles: list[RemovableHandle] = []

    def add(self, module: nn.Module, hook: ForwardHook) -> None:
        """Call ``hook(module, args, output)`` after each forward of the module; its result is ignored."""
        self._handles.append(module.register_forward_hook(_Guarded(self, hook)))

    def remove(self) -> None:
        """Take all of them off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


class _Guarded:
    """A hook that keeps its errors to itself. In a copy of the module, or a saved one, it does nothing."""

    def __init__(self, owner: HookSet, hook: ForwardHook) -> None:
        self._owner = owner
        self._hook = hook

    def __call__(self, module: nn.Module, args: Any, output: Any) -> None:
        owner = self._owner
        if owner.error is not None:
            return
        began = time.perf_counter()
        try:
            self._hook(module, args, output)
        except Exception as error:  # meets whatever modules people write; told when the step is over
            owner.error = error
        owner.seconds += time.perf_counter() - began

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing_hook, ()


def _nothing_hook() -> ForwardHook:
    return _nothing


def _nothing(module: nn.Module, args: Any, output: Any) -> None:
    """What is left of a hook in a copy that the user's step made of the model."""
