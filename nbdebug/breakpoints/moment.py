"""What a condition reads, and the numbers there are at one moment. Arithmetic as in numpy: it never raises."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST_WINDOW = 10_000
FEWEST = 10  # values that a longer window waits for
ALL_LAYERS = "*"


@dataclass(frozen=True, slots=True)
class Reading:
    """A signal that a condition reads, or metric: of the model, of one layer, or of all layers (``"*"``)."""

    name: str
    layer: str = ""


class Moment:
    """The present values and those before; a reading is ``None`` where it is not there (yet)."""

    def __init__(self, values: Mapping[Reading, float], past: Mapping[Reading, Sequence[float]]) -> None:
        self._values = values
        self._past = past
        self._before: dict[Reading, NDArray[np.float64]] = {}
        self._layers: dict[str, list[float]] | None = None

    def present(self, reading: Reading) -> float | None:
        """The value now."""
        value = self._values.get(reading)
        return None if value is None else np.float64(value)

    def before(self, reading: Reading, most: int) -> NDArray[np.float64]:
        """Up to ``most`` values before this one, the latest last."""
        if reading not in self._before:
            self._before[reading] = np.asarray(self._past.get(reading, ()), dtype=np.float64)
        return self._before[reading][-most:]

    def of_layers(self, name: str) -> list[float]:
        """The values now of all layers that have one."""
        if self._layers is None:
            self._layers = {}
            for reading, value in self._values.items():
                if reading.layer:
                    self._layers.setdefault(reading.name, []).append(value)
        return self._layers.get(name, [])


Maybe = Callable[[Moment], float | None]  # a number of float64, None where something it needs is not there
Verdict = Callable[[Moment], bool | None]

NOTHING = Moment({}, {})
ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "%": operator.mod,
    "**": operator.pow,
}
COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
}
OF_ONE: dict[str, Callable[[Any], Any]] = {
    "abs": np.abs,
    "log": np.log,
    "log10": np.log10,
    "log2": np.log2,
    "sqrt": np.sqrt,
    "exp": np.exp,
}
TESTS: dict[str, Callable[[Any], Any]] = {"isnan": np.isnan, "isinf": np.isinf, "isfinite": np.isfinite}
OF_MANY: dict[str, Callable[[Any], Any]] = {
    "max": np.max,
    "min": np.min,
    "mean": np.mean,
    "median": np.median,
    "sum": np.sum,
    "std": np.std,
}
OVER_LAYERS = ("max", "min", "mean", "median", "sum")
EARLIER = ("previous", "change")
FUNCTIONS = frozenset({*OF_ONE, *TESTS, *OF_MANY, *EARLIER})


def constant(value: float) -> Maybe:
    """Always ``value``."""
    number = np.float64(value)
    return lambda moment: number


def applied(function: Callable[..., Any], *operands: Maybe) -> Maybe:
    """``function`` of the operands, once all of them are there."""

    def value(moment: Moment) -> float | None:
        numbers = [operand(moment) for operand in operands]
        return None if any(number is None for number in numbers) else np.float64(function(*numbers))

    return value


def over_layers(function: Callable[[Any], Any], name: str) -> Maybe:
    """``function`` of what all layers have now."""

    def value(moment: Moment) -> float | None:
        numbers = moment.of_layers(name)
        return np.float64(function(np.asarray(numbers, dtype=np.float64))) if numbers else None

    return value


def window(function: Callable[[Any], Any], reading: Reading, length: int) -> Maybe:
    """``function`` of the last values before this one, once there are enough."""

    def value(moment: Moment) -> float | None:
        numbers = moment.before(reading, length)
        return np.float64(function(numbers)) if numbers.size >= min(length, FEWEST) else None

    return value


def earlier(reading: Reading, back: int) -> Maybe:
    """The value ``back`` before this one."""

    def value(moment: Moment) -> float | None:
        numbers = moment.before(reading, back)
        return np.float64(numbers[0]) if numbers.size == back else None

    return value


def compared(signs: Sequence[str], operands: Sequence[Callable[[Moment], Any]]) -> Verdict:
    """Whether each two neighbours compare as their sign says; unknown where that hangs on one that is not there."""

    def holds(moment: Moment) -> bool | None:
        found = [operand(moment) for operand in operands]
        pairs = zip(signs, found, found[1:], strict=False)
        return all_of(None if a is None or b is None else bool(COMPARE[sign](a, b)) for sign, a, b in pairs)

    return holds


def all_of(verdicts: Any) -> bool | None:
    """False once one is, whatever is unknown; else unknown once one is; else True."""
    known = list(verdicts)
    return False if False in known else None if None in known else True


def any_of(verdicts: Any) -> bool | None:
    """True once one is, whatever is unknown; else unknown once one is; else False."""
    known = list(verdicts)
    return True if True in known else None if None in known else False
