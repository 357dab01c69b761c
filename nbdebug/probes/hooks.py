"""The one place where module hooks are put on, so that they all come off. Training thread only.

A hook counts only what the thread that called :meth:`HookSet.begin` runs, and neither what autograd runs again for
activation checkpointing nor what a compiler or tracer reads. What a hook computes is hidden from the user's own modes
(dispatch modes, ``torch.func``), which would otherwise record it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch._functorch.pyfunctorch import temporarily_clear_interpreter_stack
from torch.utils._python_dispatch import _disable_current_modes

AfterHook = Callable[[str, nn.Module, Any, Any], None]
BeforeHook = Callable[[str, nn.Module, Any], None]
CallHook = Callable[..., None]


class HookSet:
    """Hooks that live for one step. One that raises stops all; the model's own forward goes on.

    ``seconds`` is what they took since :meth:`begin`, ``error`` is what one of them raised. ``elsewhere`` names the
    modules that another thread called, such as a replica's.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.error: Exception | None = None
        self.elsewhere: set[str] = set()
        self.thread = 0
        self._undo: list[Callable[[], None]] = []

    def begin(self) -> None:
        """A step begins on this thread."""
        self.seconds = 0.0
        self.error = None
        self.elsewhere.clear()
        self.thread = threading.get_ident()

    def add(self, name: str, module: nn.Module, hook: AfterHook) -> None:
        """Call ``hook(name, module, args, output)`` after each forward of the module; its result is ignored."""
        self._undo.append(module.register_forward_hook(_Guarded(self, name, hook)).remove)

    def add_with_options(self, name: str, module: nn.Module, hook: CallHook) -> None:
        """Call ``hook(name, module, args, kwargs, output)`` after each forward."""
        self._undo.append(module.register_forward_hook(_Guarded(self, name, hook), with_kwargs=True).remove)

    def add_before(self, name: str, module: nn.Module, hook: BeforeHook) -> None:
        """Call ``hook(name, module, args)`` before each forward."""
        self._undo.append(module.register_forward_pre_hook(_Guarded(self, name, hook)).remove)

    def add_before_call(self, name: str, module: nn.Module, hook: CallHook, *, measuring: bool = True) -> None:
        """Call ``hook(name, module, args, kwargs)`` before each call, outside of what ``torch.compile`` made of it.

        A hook that is not ``measuring`` runs the user's code and is hidden from nothing.
        """
        guarded = _Guarded(self, name, hook, measuring=measuring)
        if is_compiled_in_place(module):
            self._undo.append(_listen(module, guarded, before=True))
        else:
            self._undo.append(module.register_forward_pre_hook(guarded, with_kwargs=True).remove)

    def add_after_call(self, name: str, module: nn.Module, hook: AfterHook) -> None:
        """Call ``hook(name, module, args, output)`` after each call, likewise."""
        guarded = _Guarded(self, name, hook)
        if is_compiled_in_place(module):
            self._undo.append(_listen(module, guarded, before=False))
        else:
            self._undo.append(module.register_forward_hook(guarded).remove)

    def remove(self) -> None:
        """Take all of them off."""
        for undo in self._undo:
            undo()
        self._undo.clear()


class _Guarded:
    """A hook that keeps its errors to itself. In a copy of the module, or a saved one, it does nothing."""

    def __init__(self, owner: HookSet, name: str, hook: Callable[..., None], *, measuring: bool = True) -> None:
        self._owner = owner
        self._name = name
        self._hook = hook
        self._measuring = measuring

    def __call__(self, *args: Any) -> None:
        if torch.compiler.is_compiling() or torch._C._get_tracing_state() or torch._C._current_graph_task_id() != -1:
            return
        owner = self._owner
        if owner.error is not None:
            return
        if threading.get_ident() != owner.thread:
            owner.elsewhere.add(self._name)
            return
        began = time.perf_counter()
        try:
            if not self._measuring:
                self._hook(self._name, *args)
            elif torch._C._len_torch_dispatch_stack() or torch._C._functorch.peek_interpreter_stack() is not None:
                with _out_of_modes():
                    self._hook(self._name, *args)
            else:
                with torch._C.DisableTorchFunction():
                    self._hook(self._name, *args)
        except Exception as error:  # meets whatever modules people write; told when the step is over
            owner.error = error
        owner.seconds += time.perf_counter() - began

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing_hook, ()


@contextmanager
def _out_of_modes() -> Iterator[None]:
    """What runs here is neither transformed by ``torch.func`` nor told to dispatch modes.

    Selective checkpointing is such a mode: it would take our operations for the model's own and mix up what it kept.
    """
    with torch._C.DisableTorchFunction(), _disable_current_modes(), temporarily_clear_interpreter_stack():
        yield


def _nothing_hook() -> Callable[..., None]:
    return _nothing


def _nothing(*args: Any) -> None:
    """What is left of a hook in a copy that the user's step made of the model."""


def is_compiled_in_place(module: nn.Module) -> bool:
    """Whether ``module.compile()`` was called: its hooks are within the compiled code."""
    return getattr(module, "_compiled_call_impl", None) is not None


class _Heard:
    """Stands in for a module's compiled call during a sampled step, and tells listeners."""

    def __init__(self, module: nn.Module, call: Callable[..., Any]) -> None:
        self.module = module
        self.call = call
        self.before: list[_Guarded] = []
        self.after: list[_Guarded] = []

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for hook in self.before:
            hook(self.module, args, kwargs)
        output = self.call(*args, **kwargs)
        for hook in self.after:
            hook(self.module, args, output)
        return output


def _listen(module: nn.Module, hook: _Guarded, *, before: bool) -> Callable[[], None]:
    """Hear a module that was compiled in place; several may listen, and the last to leave puts the call back."""
    impl: Any = module._compiled_call_impl
    heard = impl if isinstance(impl, _Heard) else _Heard(module, impl)
    module._compiled_call_impl = heard
    listeners = heard.before if before else heard.after
    listeners.append(hook)

    def leave() -> None:
        listeners.remove(hook)
        if not heard.before and not heard.after and module._compiled_call_impl is heard:
            module._compiled_call_impl = heard.call

    return leave
