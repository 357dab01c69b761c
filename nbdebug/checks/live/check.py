"""What a live check is: a rule on a window of recorded numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from nbdebug.checks.check import Say
from nbdebug.checks.live.confirming import Confirm
from nbdebug.checks.live.window import Window
from nbdebug.checks.parameters import Parameter
from nbdebug.records.findings import Cause
from nbdebug.records.signals import Signal


@dataclass(frozen=True, slots=True)
class LiveCheck:
    """A rule: ``judge(window, say)`` reads arrays and says; a window that can't tell yet is passed over by ``Skip``.

    ``curves`` and ``signals`` are what it needs. It has to say the same ``persistence`` times in a row, at judgements
    with something new to judge by, before it is heard, and be silent as often before it counts as gone. ``steps`` is
    the least number of steps since the start or the last change that it can judge by. ``confirm`` says which looks at
    the model it wants before it speaks.
    """

    name: str
    title: str
    judge: Callable[[Window, Say], None]
    causes: tuple[Cause, ...]
    curves: tuple[str, ...] = ("loss/train",)
    signals: tuple[Signal, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    source: str = ""
    persistence: int = 2
    steps: int = 10
    confirm: Confirm | None = None
