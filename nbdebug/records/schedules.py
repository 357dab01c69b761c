"""Learning-rate schedules as data: which shape, how long, with which parameters. No thread, no torch.

A schedule is a factor on base rates, 1 at its highest: the base rate is the rate that a person asks for, and the
schedule says which share of it is in force at which position. A position is a call of the scheduler's ``step()``, so
an epoch or a batch, by ``interval``; every length here counts positions.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from nbdebug.records.errors import collect


class ScheduleKind(StrEnum):
    """The shapes."""

    CONSTANT = "constant"
    STEP = "step"
    COSINE = "cosine"
    ONE_CYCLE = "one_cycle"
    CYCLIC = "cyclic"
    EXPONENTIAL = "exponential"
    PLATEAU = "plateau"


class Interval(StrEnum):
    """When the scheduler takes a step: after each epoch or after each batch."""

    EPOCH = "epoch"
    BATCH = "batch"


@dataclass(frozen=True, slots=True)
class ScheduleParameter:
    """A number that shapes a schedule: at least ``low`` and at most ``high``, the open ends excluded."""

    name: str
    default: float
    low: float
    high: float
    text: str
    whole: bool = False
    low_open: bool = False
    high_open: bool = False


def _count(name: str, default: int, text: str, low: int = 1) -> ScheduleParameter:
    return ScheduleParameter(name, default, low, math.inf, text, whole=True)


def _share(
    name: str, default: float, text: str, *, low_open: bool = False, high_open: bool = False
) -> ScheduleParameter:
    return ScheduleParameter(name, default, 0.0, 1.0, text, low_open=low_open, high_open=high_open)


_FLOOR = _share("floor", 0.0, "the lowest rate, as a share of the base rate")
_K = ScheduleKind
PARAMETERS: dict[ScheduleKind, tuple[ScheduleParameter, ...]] = {
    _K.CONSTANT: (),
    _K.STEP: (
        _count("every", 10, "how many positions a stair is long"),
        _share("gamma", 0.1, "each stair is this share of the one before", low_open=True),
    ),
    _K.COSINE: (_FLOOR,),
    _K.ONE_CYCLE: (
        _share("peak_at", 0.3, "where the peak lies, as a share of the total", high_open=True),
        ScheduleParameter("start_divisor", 25.0, 1.0, math.inf, "the base rate over the first rate"),
        ScheduleParameter("final_divisor", 1e4, 1.0, math.inf, "the first rate over the last rate"),
    ),
    _K.CYCLIC: (
        _count("every", 20, "how many positions a cycle is long, up and down", low=2),
        _share("floor", 0.1, "the lowest rate, as a share of the base rate", high_open=True),
        _share("gamma", 1.0, "each cycle's height is this share of the one before", low_open=True),
    ),
    _K.EXPONENTIAL: (_share("gamma", 0.95, "each rate is this share of the one before", low_open=True),),
    _K.PLATEAU: (
        _share("gamma", 0.1, "what the rate is multiplied by", low_open=True, high_open=True),
        _count("patience", 10, "how many positions without improvement are put up with", low=0),
        _share("threshold", 1e-4, "how much lower a loss must be to count, as a share of the best", high_open=True),
        _count("cooldown", 0, "how many positions after a reduction are not judged", low=0),
        _FLOOR,
    ),
}
COMMON = ("interval", "total", "warmup_steps", "warmup_start")
NEEDS_TOTAL = (_K.COSINE, _K.ONE_CYCLE)
WARMS_UP_ITSELF = (_K.ONE_CYCLE, _K.CYCLIC)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule; only the parameters of its kind in :data:`PARAMETERS` mean something. Made with :meth:`of`.

    ``total`` is the whole length, warm-up included, of a cosine or one-cycle schedule, after which the last rate
    stays; the other kinds have no end, and it means nothing to them. During the first ``warmup_steps`` positions the
    factor rises linearly from ``warmup_start`` towards 1, which the position after them has; the shape begins there.
    """

    kind: ScheduleKind = ScheduleKind.CONSTANT
    interval: Interval = Interval.EPOCH
    total: int | None = None
    warmup_steps: int = 0
    warmup_start: float = 0.01
    every: int = 10
    gamma: float = 1.0
    floor: float = 0.0
    peak_at: float = 0.3
    start_divisor: float = 25.0
    final_divisor: float = 1e4
    patience: int = 10
    threshold: float = 1e-4
    cooldown: int = 0

    @classmethod
    def of(cls, kind: str, **values: Any) -> Schedule:
        """A schedule of a kind with its defaults, but for these values.

        Raises:
            ConfigurationError: lists everything that can't work.
        """
        mistakes = schedule_mistakes(kind, values)
        if mistakes:
            raise collect(mistakes)
        chosen = ScheduleKind(kind)
        plain = {name: value for name, value in values.items() if name != "interval"}
        interval = Interval(values.get("interval", Interval.EPOCH))
        defaults = {each.name: int(each.default) if each.whole else each.default for each in PARAMETERS[chosen]}
        return cls(kind=chosen, interval=interval, **{**defaults, **plain})

    @property
    def values(self) -> dict[str, Any]:
        """What :meth:`of` takes to make this schedule again, besides its kind."""
        names = (*COMMON, *(each.name for each in PARAMETERS[self.kind]))
        return {name: getattr(self, name) for name in names}

    def mistakes(self) -> list[str]:
        """What can't work, a line for each."""
        return schedule_mistakes(self.kind, self.values if self.kind in list(ScheduleKind) else {})

    def __str__(self) -> str:
        named = {each.name: getattr(self, each.name) for each in PARAMETERS[self.kind]}
        if self.kind in NEEDS_TOTAL:
            named = {"total": self.total, **named}
        parts = [f"{self.kind.replace('_', ' ')} per {self.interval}"]
        parts += [f"{name} {value:g}" for name, value in named.items()]
        parts += [f"warm-up {self.warmup_steps}"] if self.warmup_steps else []
        return ", ".join(parts)


def schedule_mistakes(kind: str, values: Mapping[str, Any]) -> list[str]:
    """What is wrong with a schedule of this kind and these values, a line for each; nothing if all is well."""
    if kind not in list(ScheduleKind):
        return [f"unknown schedule {kind!r}{_near(str(kind), list(ScheduleKind))}"]
    chosen = ScheduleKind(kind)
    shape = {each.name: each for each in PARAMETERS[chosen]}
    mistakes = [
        f"a {chosen} schedule has no {name!r}{_near(name, [*shape, *COMMON])}"
        for name in values
        if name not in shape and name not in COMMON
    ]
    for name, parameter in shape.items():
        mistakes += _number_mistakes(parameter, values[name]) if name in values else []
    interval = values.get("interval", Interval.EPOCH)
    if interval not in list(Interval):
        mistakes.append(f"interval must be 'epoch' or 'batch', not {interval!r}")
    return mistakes + _length_mistakes(chosen, values)


def _length_mistakes(kind: ScheduleKind, values: Mapping[str, Any]) -> list[str]:
    warm_up, total = values.get("warmup_steps", 0), values.get("total")
    mistakes = _number_mistakes(_count("warmup_steps", 0, "", low=0), warm_up)
    mistakes += _number_mistakes(_share("warmup_start", 0.01, "", low_open=True), values.get("warmup_start", 0.01))
    if kind in WARMS_UP_ITSELF and warm_up:
        mistakes.append(f"a {kind} schedule begins low by itself: leave warmup_steps at 0")
    if total is None:
        return [*mistakes, f"a {kind} schedule needs total=..., its length"] if kind in NEEDS_TOTAL else mistakes
    wrong = _number_mistakes(_count("total", 2, "", low=2 if kind is ScheduleKind.ONE_CYCLE else 1), total)
    if not mistakes and not wrong and kind in NEEDS_TOTAL and warm_up >= total:
        wrong = [f"warmup_steps={warm_up} leaves nothing of total={total}: it must be below it"]
    return mistakes + wrong


def _number_mistakes(parameter: ScheduleParameter, value: Any) -> list[str]:
    name, low, high = parameter.name, parameter.low, parameter.high
    kinds = (int,) if parameter.whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        return [f"{name} must be a {'whole number' if parameter.whole else 'number'}, not {value!r}"]
    above = low < value if parameter.low_open else low <= value
    below = value < high if parameter.high_open or math.isinf(high) else value <= high
    if above and below:
        return []
    start = f"above {low:g}" if parameter.low_open else f"at least {low:g}"
    end = "finite" if math.isinf(high) else f"below {high:g}" if parameter.high_open else f"at most {high:g}"
    return [f"{name}={value!r} is out of range: it must be {start} and {end}"]


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, 1, 0.5)
    hint = f": did you mean {str(near[0])!r}?" if near else ""
    return f"{hint} (there are {', '.join(map(str, known))})"
