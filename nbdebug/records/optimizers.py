"""Optimizers as data: their kinds, and the options of a parameter group that can be changed. No thread, no torch."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class OptimizerKind(StrEnum):
    """The kinds that one can swap to, by their names in ``torch.optim``."""

    SGD = "SGD"
    ADAM = "Adam"
    ADAMW = "AdamW"
    NADAM = "NAdam"
    RADAM = "RAdam"
    ADAMAX = "Adamax"
    RMSPROP = "RMSprop"
    ADAGRAD = "Adagrad"


class OptionType(StrEnum):
    """What an option's value is: a number, a whole number, or on and off."""

    NUMBER = "number"
    COUNT = "count"
    SWITCH = "switch"


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a parameter group: a value at least ``low`` and below ``high`` (at most, where ``closed``).

    It is the group's ``key``, or the ``index``-th part of it. ``text`` says what it does, ``on_change`` what to expect
    of a change in the middle of a run.
    """

    name: str
    key: str
    text: str
    type: OptionType = OptionType.NUMBER
    low: float = 0.0
    high: float = float("inf")
    closed: bool = False
    index: int | None = None
    on_change: str = "acts from the next update on"


@dataclass(frozen=True, slots=True)
class OptionState:
    """An option and its present value in a group; ``fixed`` says why it can't be changed, empty if it can."""

    option: Option
    value: float | bool | None
    fixed: str = ""
