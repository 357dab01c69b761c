"""Where a step's time goes: waiting for the batch, forward, backward, optimizer, ourselves. Training thread only.

Seconds of wall-clock time. The forward is what the networks' own calls took, without what our hooks took inside it; the
backward is whatever else the step did, the loss included. On a GPU these are the times to queue the work: the device
goes on by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from nbdebug.probes.probe import Floats, Reading
from nbdebug.records.layers import Unseen
from nbdebug.records.signals import Series, Signal


class TimingProbe:
    """Hooks before and after the outermost modules' calls, where those can be hooked without harm."""

    name = "time"
    signals: tuple[Signal, ...] = (
        Signal.TIME_DATA,
        Signal.TIME_FORWARD,
        Signal.TIME_BACKWARD,
        Signal.TIME_OPTIMIZER,
        Signal.TIME_WATCHING,
    )
    hook_s = 0.0

    def __init__(self, roots: Mapping[str, nn.Module], *, hooked: bool = True) -> None:
        self._roots = [root for root in roots.values() if hooked and _can_be_timed(root)]
        self._all = len(self._roots) == len(roots)
        self._handles: list[RemovableHandle] = []
        self._thread = 0
        self._depth = 0
        self._since = 0.0
        self._forward_s = 0.0
        self._scalars: dict[Series, float] = {}

    def begin(self, step: int) -> None:
        """Put the hooks on."""
        self._thread, self._depth, self._forward_s = threading.get_ident(), 0, 0.0
        for root in self._roots:
            self._handles.append(root.register_forward_pre_hook(_Mark(self._called)))
            self._handles.append(root.register_forward_hook(_Mark(self._returned)))

    def unhook(self) -> None:
        """Take them off."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def spent(
        self, *, data_s: float, step_s: float, optimizer_s: float, watching_s: float, in_forward_s: float, ours_s: float
    ) -> None:
        """What the step took in all, of which ``watching_s`` in our hooks, ``in_forward_s`` of that in the forward.

        ``ours_s`` is what was ours outside of it as well, as far as it has come.
        """
        forward_s = max(self._forward_s - in_forward_s, 0.0)
        rest_s = max(step_s - watching_s - optimizer_s - (forward_s if self._all else 0.0), 0.0)
        self._scalars = {
            Series(Signal.TIME_DATA): data_s,
            Series(Signal.TIME_BACKWARD): rest_s,
            Series(Signal.TIME_OPTIMIZER): optimizer_s,
            Series(Signal.TIME_WATCHING): ours_s,
        }
        if self._all:
            self._scalars[Series(Signal.TIME_FORWARD)] = forward_s

    def finish(self) -> list[torch.Tensor]:
        """Nothing is on a device."""
        return []

    def read(self, arrays: list[Floats]) -> Reading:
        """The seconds."""
        return Reading(scalars=self._scalars)

    def drop(self) -> None:
        """Take the hooks off."""
        self.unhook()

    def unseen(self) -> list[Unseen]:
        """Said once for the whole model, where its forward can't be told from the backward."""
        if self._all:
            return []
        return [Unseen("", "forward time", "a compiled or scripted network takes no hooks: counted with the backward")]

    def _called(self) -> None:
        if threading.get_ident() == self._thread:
            if self._depth == 0:
                self._since = time.perf_counter()
            self._depth += 1

    def _returned(self) -> None:
        if threading.get_ident() == self._thread and self._depth:
            self._depth -= 1
            if self._depth == 0:
                self._forward_s += time.perf_counter() - self._since


class _Mark:
    """A hook that only looks at the clock. In a copy of the module, or a saved one, it does nothing."""

    def __init__(self, act: Any) -> None:
        self._act = act

    def __call__(self, *_: Any) -> None:
        if not torch.compiler.is_compiling():  # nothing of this is to be compiled
            self._act()

    def __reduce__(self) -> tuple[Any, ...]:
        return _nothing_mark, ()


def _nothing_mark() -> Any:
    return _nothing


def _nothing(*_: Any) -> None:
    """What is left of a hook in a copy."""


def _can_be_timed(root: nn.Module) -> bool:
    """Hooks on the outside of ``torch.compile``'s wrapper are free; those of ``module.compile()`` would be compiled."""
    in_place = getattr(root, "_compiled_call_impl", None) is not None
    return not in_place and not isinstance(root, torch.jit.ScriptModule)
