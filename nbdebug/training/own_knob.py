"""A knob of the user's own: a number that their training code reads. Read on any thread, set on the training thread."""

from __future__ import annotations

import operator
from typing import Any


class Knob:
    """A number that training code reads and that can be changed meanwhile: ``knob.value``, ``float(k)``, ``2 * k``.

    It changes between two steps only. Reading it is as cheap as reading an attribute.
    """

    def __init__(self, name: str, value: float, low: float, high: float, *, log: bool) -> None:
        self.name = name
        self.low = low
        self.high = high
        self.log = log
        self.value = value

    def __float__(self) -> float:
        return float(self.value)

    def __repr__(self) -> str:
        return f"<knob {self.name}: {self.value:g}, from {self.low:g} to {self.high:g}>"

    def __add__(self, other: Any) -> Any:
        return operator.add(self.value, other)

    def __radd__(self, other: Any) -> Any:
        return operator.add(other, self.value)

    def __sub__(self, other: Any) -> Any:
        return operator.sub(self.value, other)

    def __rsub__(self, other: Any) -> Any:
        return operator.sub(other, self.value)

    def __mul__(self, other: Any) -> Any:
        return operator.mul(self.value, other)

    def __rmul__(self, other: Any) -> Any:
        return operator.mul(other, self.value)

    def __truediv__(self, other: Any) -> Any:
        return operator.truediv(self.value, other)

    def __rtruediv__(self, other: Any) -> Any:
        return operator.truediv(other, self.value)
